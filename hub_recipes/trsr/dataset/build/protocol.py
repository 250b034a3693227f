"""The protocol `paper` and similar ones: which users and items are kept, how users are divided, which negatives they get.

Every choice depends on the seed and on ids, never on the order of rows: the same users get the same split and negatives each
time that a dataset is built. A negative is an item that the user has never seen, also not among the interactions that the
protocol leaves out. Knows nothing of files.

Reference:
    LLM-TRSR (arXiv 2403.13325) and its code: users with 11 to 26 items, the last one is the target, 20 negatives.
    Unlike in that code, a negative is never an item of the user's history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasets import Dataset

from trsr.dataset.build import negatives as drawing
from trsr.dataset.build.negatives import Pool
from trsr.dataset.build.sequences import Sequences, decode, lengths, lists
from trsr.dataset.build.splits import KINDS, Division, hashes
from trsr.dataset.contract import HISTORIES, Tables, in_memory
from trsr.errors import DataError

# Name -> description of how negatives are drawn.
SAMPLINGS = {
    "uniform": "uniformly from the catalogue",
    "popularity": "in proportion to the interactions of training users",
}
PAPER = Division()
_ALSO_MET = "also_met"
# Which word of a user's hash is the seed of the negatives.
_HASH_WORD_OF_SPLIT = {"test": -1, "validation": -2, "train": -3}
_PART = 1 << 16  # users in one chunk of a table, so that its texts stay far below 2 GB


@dataclass(frozen=True, slots=True)
class KeptUsers:
    """The users of a dataset, and numbers of users.

    Attributes:
        sequences: Of the kept users; the last item is the target.
        short: Users left out because they have too few items.
        long: Users left out because they have too many items.
        cut: Users kept with their newest items alone.
    """

    sequences: Sequences
    short: int
    long: int
    cut: int


def check_bounds(shortest: int, longest: int, least: int = 2) -> None:
    """Raise DataError unless `least` <= `shortest` <= `longest`, the smallest and the largest number of items of a user."""
    if not least <= shortest <= longest:
        raise DataError(
            f"Users of {shortest} to {longest} items were asked for. This protocol needs at least {least} of each, and a minimum "
            "that is not above the maximum: give another --min-history or --max-history."
        )


def check_negatives(negatives: int) -> None:
    """Raise DataError if there are no negatives."""
    if negatives < 1:
        raise DataError(
            f"A target needs at least 1 negative to be ranked against, got {negatives}. Give another --negatives."
        )


def keep_users(
    sequences: Sequences, *, shortest: int = 11, longest: int = 26, keep_last: bool = False, truncate: bool = True
) -> KeptUsers:
    """Keep the users with `shortest` to `longest` items, the target counted.

    Args:
        keep_last: Keep the newest `longest` items of a user with more, instead of leaving the user out.
        truncate: If False, such users are kept with all items, which a later step cuts.

    Raises:
        DataError: If the bounds are not valid, or no user is left.
    """
    check_bounds(shortest, longest)
    counts = lengths(sequences.items)
    kept_mask = (counts >= shortest) & (keep_last | (counts <= longest))
    short, long = int((counts < shortest).sum()), int((counts > longest).sum())
    if not kept_mask.any():
        hint = "" if keep_last or not long else " Or keep the newest items of long users (--keep-last)."
        raise DataError(
            f"No user is left of {len(sequences)}: {short} have fewer than {shortest} items, {long} more than "
            f"{longest}. Give longer histories or other bounds.{hint}"
        )
    kept_sequences = sequences.take(np.flatnonzero(kept_mask))
    if keep_last and truncate:
        kept_sequences = kept_sequences.newest(longest)
    return KeptUsers(kept_sequences, short, 0 if keep_last else long, long if keep_last else 0)


def histories(
    sequences: Sequences,
    keys: np.ndarray,
    pool: Pool,
    *,
    negatives: int = 20,
    sampling: str = "uniform",
    also_met: bool = False,
) -> Dataset:
    """Rows of the config `histories`, one for each user: the last item is the target.

    Args:
        keys: Seed of each user's negatives, uint64 (users,).
        also_met: Whether to add the column `also_met`: the other items that the user has seen, sorted by id.

    Raises:
        DataError: If `negatives` is below 1, or the pool has too few unseen items for a user.
    """
    check_negatives(negatives)
    drawn = drawing.draw(sequences, keys, pool, negatives, sampling)
    parts = []
    for start in range(0, len(drawn), _PART):
        batch = sequences.take(np.arange(start, min(start + _PART, len(drawn))))
        part = _rows(batch, drawn[start : start + _PART])
        parts.append(part.append_column(_ALSO_MET, decode(_also_seen(batch), batch.catalogue)) if also_met else part)
    return in_memory(pa.concat_tables(parts))


def _rows(sequences: Sequences, drawn: np.ndarray) -> pa.Table:
    ids, items = sequences.catalogue, sequences.items.values
    last = sequences.items.offsets.to_numpy()[1:] - 1
    past = lists(lengths(sequences.items) - 1, items.take(pa.array(np.delete(np.arange(len(items)), last))))
    negatives = lists(np.full(len(drawn), drawn.shape[1]), pa.array(drawn.ravel()))
    columns = [sequences.users, decode(past, ids), ids.take(items.take(pa.array(last))), decode(negatives, ids)]
    return pa.table(columns, schema=HISTORIES.arrow_schema)


def _repeated_targets(sequences: Sequences) -> int:
    """Number of users whose target is in their history."""
    items, ends = sequences.items.values.to_numpy(), sequences.items.offsets.to_numpy()
    same = items == np.repeat(items[ends[1:] - 1], np.diff(ends))
    return int((np.add.reduceat(same, ends[:-1], dtype=int) > 1).sum())


def _also_seen(sequences: Sequences) -> pa.ListArray:
    """The seen items of users that are not in their sequences, each once, sorted by id."""
    size = len(sequences.catalogue)
    seen, own = (
        np.repeat(np.arange(len(sequences)), lengths(items)) * size + items.values.to_numpy()
        for items in (sequences.all_seen, sequences.items)
    )
    others = np.setdiff1d(seen, own)
    counts = np.bincount(others // size, minlength=len(sequences))
    return lists(counts, pa.array((others % size).astype(np.int32)))


def _tied_targets(sequences: Sequences) -> int:
    """Number of users whose target has the same time as the item before it, so that their order is not known."""
    assert sequences.times is not None
    times, ends = sequences.times.values.to_numpy(), sequences.times.offsets.to_numpy()[1:]
    return int((times[ends - 1] == times[ends - 2]).sum())


def _count_users(splits: Sequence[np.ndarray], users: int) -> int:
    """Number of the `users` that are in at least one of the lists of indices."""
    mask = np.zeros(users, bool)
    for indices in splits:
        mask[indices] = True
    return int(mask.sum())


def make_histories(
    sequences: Sequences,
    *,
    shortest: int = 11,
    longest: int = 26,
    keep_last: bool = False,
    division: Division = PAPER,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
    negatives: int = 20,
    sampling: str = "uniform",
    seed: int = 0,
) -> tuple[dict[str, Dataset], dict[str, int]]:
    """Select users, divide them into splits, and draw negatives.

    Args:
        shortest: Smallest number of items of a user, in all splits together; the target counts.
        longest: Largest number of items of a row; the target counts.
        sampling: `uniform`, or `popularity`: in proportion to the interactions of training users. It does not change users
            and splits.

    Returns:
        Split -> rows of the config `histories`, and counts of users. If some seen items are left out, rows have the column
        `also_met`.

    Raises:
        DataError: As the steps do.
    """
    if sampling not in SAMPLINGS:
        raise DataError(f"Unknown negative sampling {sampling!r}; expected {' or '.join(SAMPLINGS)}.")
    check_bounds(shortest, longest, division.min_items)
    # If a user's own items are divided, the newest items of a row are known only after the division.
    splits_within_users = division.within_users
    kept_users = keep_users(
        sequences,
        shortest=shortest,
        longest=longest,
        keep_last=keep_last or splits_within_users,
        truncate=not splits_within_users,
    )
    hashed = hashes(kept_users.sequences.users, seed)
    divided = division.divide(kept_users.sequences, hashed, {"train": train, "validation": validation, "test": test})
    splits = {split: users for split, (_, users) in divided.items()}
    cut = kept_users.cut
    if splits_within_users:
        long = [indices[lengths(users.items) > longest] for indices, users in divided.values()]
        cut = _count_users(long, len(hashed))
        splits = {split: users.newest(longest) for split, users in splits.items()}
    pool = Pool.popular(splits["train"]) if sampling == "popularity" else Pool.uniform(len(sequences.catalogue))
    also_met = any(users.seen is not None for users in splits.values())
    rows_of = {}
    for split, (indices, _) in divided.items():
        # The first words of the hash order the users, so a later word is the seed. A user in several splits has another seed in
        # each: otherwise the negatives of training would be those of test.
        keys = hashed[indices, _HASH_WORD_OF_SPLIT[split] if division.within_users else -1]
        rows_of[split] = histories(splits[split], keys, pool, negatives=negatives, sampling=sampling, also_met=also_met)
    used = _count_users([indices for indices, _ in divided.values()], len(hashed))
    counts = {
        "users_read": len(sequences),
        "users_dropped_short": kept_users.short,
        "users_dropped_long": kept_users.long,
        "users_cut_to_newest": cut,
        "users_in_no_split": len(kept_users.sequences) - used,
        "users_kept": used,
        "targets_in_own_history": sum(map(_repeated_targets, splits.values())),
    }
    if sequences.times is not None:
        counts["targets_tied_in_time"] = sum(map(_tied_targets, splits.values()))
    if division.within_users:
        counts |= {f"rows_{split}": len(rows) for split, rows in rows_of.items()}
    if also_met:
        counts["items_also_met"] = sum(
            len(rows.data[_ALSO_MET].combine_chunks().flatten()) for rows in rows_of.values()
        )
    return rows_of, counts


def in_words(shortest: int, longest: int, keep_last: bool, division: Division = PAPER) -> str:
    """A phrase that says which users are kept."""
    if division.within_users:
        return f"users with at least {shortest} items, of which a row has the newest {longest} up to its target"
    if keep_last:
        return f"users with at least {shortest} items, of which the newest {longest} are used"
    return f"users with {shortest} to {longest} items"


USE = """\
```python
from datasets import load_dataset

items = load_dataset("FOLDER_OR_REPO", "items", split="train")
test = load_dataset("FOLDER_OR_REPO", "histories", split="test")
```"""


def sizes(tables: Tables) -> str:
    """Rows of each split as a Markdown table."""
    lines = (
        f"| `{config}` | {split} | {len(rows)} |" for config, splits in tables.items() for split, rows in splits.items()
    )
    return "\n".join(["| config | split | rows |", "|---|---|---|", *lines])


def describe(
    tables: Tables, *, users: str, negatives: int, sampling: str, seed: int, division: Division = PAPER
) -> str:
    """Sizes, protocol and use in Markdown, for a dataset card.

    Args:
        users: Which users are kept, see `in_words`.
    """
    name = "`paper` of [LLM-TRSR](https://arxiv.org/abs/2403.13325)"
    which = "A user's last item is the `target`, the others are the `history`, oldest first."
    if division.split != "users":
        dates = f", {' and '.join(division.dates)}" if division.dates else ""
        name, which = f"`{division.split}`{dates}", "A row's `history` is what came before its `target`, oldest first."
    note = ""
    if any(_ALSO_MET in rows.column_names for rows in tables["histories"].values()):
        note = """
`also_met`, sorted by id, is what else the user ever met: left out of the history, later than it, rated lower, or at a time that cannot be read. It is
never among the negatives, and no model may be shown it.
"""
    return f"""\
{sizes(tables)}

Protocol {name}: {users}.
{which} The `negatives` are {negatives} items a
user, drawn {SAMPLINGS[sampling]},
never the target nor an item of the history. {KINDS[division.split]} The seed is {seed}.
{note}
{USE}"""
