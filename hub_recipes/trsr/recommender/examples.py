"""Training rows: prompts of the recipe, encoded by `core.prompts` to the same ids that scoring uses."""

import functools
import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from datasets import Dataset, concatenate_datasets
from tqdm.auto import tqdm

from trsr.core.compat import context_length
from trsr.core.history import Item, newest
from trsr.core.prompts import Encoder, Prefix, RankingPrompt
from trsr.core.summary_prompts import neutralize
from trsr.dataset.contract import SFT
from trsr.errors import DataError, InputError
from trsr.recommender import shared_prefix
from trsr.recommender.recipe import Recipe
from trsr.records.provenance import Provenance

ROWS = 10_000  # of encoded rows that are arrays of their own, before they become columns


def ranking_prompt(recipe: Recipe, provenance: Provenance) -> RankingPrompt:
    """The prompt of a recipe. It shortens item texts as its dataset did when built, see `dataset_scripts/tables.py`.

    Args:
        provenance: Of the recipe's dataset.
    """
    item_text = provenance.item_text
    return RankingPrompt(
        yes=recipe.yes,
        no=recipe.no,
        recent_items=recipe.recent_items,
        max_tokens=recipe.max_tokens,
        field_words=item_text["field_words"],
        field_values=item_text["field_values"],
    )


def make_encoder(recipe: Recipe, prompt: RankingPrompt, tokenizer, model_config) -> Encoder:
    """The encoder that training and evaluation share."""
    context = context_length(model_config)
    chat = bool(tokenizer.chat_template) and recipe.chat
    return Encoder(tokenizer, prompt, context, chat)


def with_earlier_targets(rows: Dataset, targets: int, block_size: int, summary: str, negatives: int) -> Dataset:
    """Add rows of earlier targets of each user: `targets` rows in all, newest first, where the history is long enough.

    An earlier target is an item after a full block. Its summary needs no new call: it is the recurrent summary after that
    block. No item or summary of an earlier row is newer than its target. It has the negatives of the user's row, without its
    target, which was shown again later where negatives come from impressions; a row that is left with too few is left out.

    Args:
        rows: Of `histories`, or of `recurrent` for the summaries.
        block_size: Items per block of the summaries.
        summary: `recurrent`, or `none` for rows without summaries.
        negatives: Number of negatives that an earlier row needs.
    """

    def expand(row: Mapping) -> Iterator[dict]:
        yield dict(row)
        history = row["history"]
        blocks = math.ceil(len(history) / block_size)
        oldest = blocks - len(row["block_summaries"]) if summary == "recurrent" else 0  # of longer histories
        for block in range(blocks - 1, oldest, -1)[: targets - 1]:
            end = block * block_size
            others = [item_id for item_id in row["negatives"] if item_id != history[end]]
            if len(others) < negatives:
                continue
            earlier = {**row, "history": history[:end], "target": history[end], "negatives": others}
            if summary == "recurrent":
                summaries = row["block_summaries"][: block - oldest]
                earlier |= {"block_summaries": summaries, "summary": summaries[-1]}
            yield earlier

    return Dataset.from_list([expanded for row in rows for expanded in expand(row)], features=rows.features)


def groups(rows: Dataset, negatives: int, seed: int) -> Iterator[tuple[dict, list[str]]]:
    """Yield (row, item ids): the target of each user, then `negatives` negatives, sampled by (seed, user id).

    Raises:
        DataError: If a user has fewer than `negatives` negatives.
    """
    for row in rows:
        if len(row["negatives"]) < negatives:
            raise DataError(
                f"User {row['user_id']!r} has {len(row['negatives'])} negatives, the recipe asks for {negatives}. "
                "Lower `negatives`, or rebuild the dataset with more."
            )
        sampled = random.Random(f"{seed}-{row['user_id']}").sample(row["negatives"], negatives)
        yield row, [row["target"], *sampled]


def labelled(rows: Dataset, negatives: int, seed: int) -> Iterator[tuple[dict, str, int]]:
    """Yield (row, item id, label) for each candidate of all `groups`; the label is 1 for the target."""
    for row, item_ids in groups(rows, negatives, seed):
        for index, item_id in enumerate(item_ids):
            yield row, item_id, int(index == 0)


def sft_rows(rows: Dataset, texts: Mapping[str, str], prompt: RankingPrompt, negatives: int, seed: int) -> Dataset:
    """Prompt-completion rows for an unmodified TRL SFTTrainer, in the wording of `prompt`.

    Its tokenizer would take a control token in an item or a summary for one: they are broken up by a space.
    """

    @functools.cache
    def item(item_id: str) -> Item:
        return Item(neutralize(Item.parse(texts[item_id]).text))

    examples = []
    for row, item_id, label in labelled(rows, negatives, seed):
        recent = [item(past_id) for past_id in newest(row["history"], prompt.recent_items)]
        text = prompt.prefix(neutralize(row.get("summary") or ""), recent) + prompt.suffix(item(item_id))
        answer = prompt.yes if label else prompt.no
        examples.append(
            {"prompt": text, "completion": f" {answer}", "user_id": row["user_id"], "item_id": item_id, "label": label}
        )
    return Dataset.from_list(examples, features=SFT)


def encode_prefix(
    encoder: Encoder,
    row: Mapping,
    history: Sequence[Item],
    item_ids: Sequence[str],
    suffixes: Sequence[Sequence[int]],
    answer_tokens: int = 0,
) -> Prefix:
    """The prefix of a user's prompts, shortened so that the longest of them fits.

    Args:
        row: Of `histories`, with a `summary` where prompts show one.
        item_ids, suffixes: The candidates and their tokens.
        answer_tokens: Tokens that follow a suffix.

    Raises:
        DataError: If an item leaves no room for the instruction; it is named.
    """
    longest = max(range(len(suffixes)), key=lambda number: len(suffixes[number]))
    try:
        return encoder.prefix_ids(row.get("summary"), history, len(suffixes[longest]) + answer_tokens)
    except InputError as error:
        raise DataError(
            f"Item {item_ids[longest]!r}, a candidate of user {row['user_id']!r}: {error} The long items of a dataset are named "
            "by `trsr check`, and cut by --field-words when it is built."
        ) from error


def encode_rows(
    rows: Dataset, texts: Mapping[str, str], encoder: Encoder, negatives: int, seed: int, form: str = "flat"
) -> tuple[Dataset, dict[str, object]]:
    """Encode training rows. Also returns statistics of the prompts: `rows`, `tokens`, number `shortened`, and a `sha256`.

    All prompts of a user are shortened alike, by the longest of them. Both forms hold the same prompts.

    Args:
        form: `flat`: a row a prompt (`input_ids`, `labels`); `shared-prefix`: a row a user, see `shared_prefix.row`.

    Raises:
        DataError: If an item leaves no room for the instruction; it is named.
    """
    examples: list[dict[str, np.ndarray]] = []
    parts: list[Dataset] = []  # as they are made, so that memory does not hold all rows twice
    counts = {"rows": 0, "tokens": 0, "shortened": 0}
    digest = hashlib.sha256()
    suffix_ids = functools.cache(lambda item_id: encoder.suffix_ids(Item.parse(texts[item_id])))
    for row, item_ids in tqdm(groups(rows, negatives, seed), total=len(rows), desc="encode", mininterval=1):
        suffixes = [suffix_ids(item_id) for item_id in item_ids]
        history = [Item.parse(texts[item_id]) for item_id in newest(row["history"], encoder.prompt.recent_items)]
        prefix = encode_prefix(encoder, row, history, item_ids, suffixes, answer_tokens=1)
        answers = [encoder.yes_id] + [encoder.no_id] * negatives
        prompts = [
            np.array([*prefix.ids, *suffix, answer], dtype=np.int32)
            for suffix, answer in zip(suffixes, answers, strict=True)
        ]
        for prompt in prompts:
            digest.update(prompt.tobytes())
        counts["rows"] += len(prompts)
        counts["tokens"] += sum(map(len, prompts))
        if prefix.recent_dropped or prefix.summary_words_dropped:
            counts["shortened"] += len(prompts)
        if form == "shared-prefix":
            user = shared_prefix.row(prefix.ids, suffixes, answers)
            examples.append({key: np.array(values, dtype=np.int32) for key, values in user.items()})
        else:
            examples += [{"input_ids": prompt, "labels": _answer_alone(prompt)} for prompt in prompts]
        if len(examples) >= ROWS:
            parts.append(_as_dataset(examples))
            examples = []
    if examples or not parts:
        parts.append(_as_dataset(examples))
    return concatenate_datasets(parts), {**counts, "sha256": digest.hexdigest()}


def _as_dataset(examples: Sequence[Mapping[str, np.ndarray]]) -> Dataset:
    return Dataset.from_dict({key: [example[key] for example in examples] for key in (examples[0] if examples else ())})


def _answer_alone(prompt: np.ndarray) -> np.ndarray:
    """Labels of a prompt and its answer: -100 for all but the last token."""
    labels = np.full_like(prompt, -100)
    labels[-1] = prompt[-1]
    return labels
