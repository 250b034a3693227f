"""The k-core of a log: users and items with at least k interactions among themselves.

Reference:
    Elliot calls it `iterative_k_core`, RecBole `user_inter_num_interval` with `item_inter_num_interval`.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from trsr.dataset.build.sequences import Sequences, lengths, lists
from trsr.errors import DataError


def k_core(sequences: Sequences, k: int) -> tuple[Sequences, dict[str, int]]:
    """Remove users and items with fewer than `k` interactions, repeatedly, until all that remain have at least `k`.

    Two interactions of a user with the same item count twice. Removed items are removed from the catalogue, too.

    Returns:
        The remaining sequences, and counts.

    Raises:
        DataError: If nothing remains.
    """
    items = sequences.items.values.to_numpy()
    owner = np.repeat(np.arange(len(sequences)), lengths(sequences.items))
    mask, rounds = np.ones(len(items), bool), 0
    while True:
        of_user = np.bincount(owner[mask], minlength=len(sequences))
        of_item = np.bincount(items[mask], minlength=len(sequences.catalogue))
        enough = mask & (of_user[owner] >= k) & (of_item[items] >= k)
        if enough.sum() == mask.sum():
            break
        mask, rounds = enough, rounds + 1
    if not mask.any():
        raise DataError(
            f"--k-core {k} leaves nothing: no {k} users and items have {k} interactions among themselves. Ask for fewer."
        )
    kept_users, kept_items = np.flatnonzero(of_user), of_item > 0
    new_indices = np.cumsum(kept_items, dtype=np.int32) - 1  # of kept items, in the smaller catalogue
    core = sequences.where(mask).take(kept_users)
    catalogue = sequences.catalogue.take(pa.array(np.flatnonzero(kept_items)))
    # The k-core removes no interaction between a user and an item that both remain: only an earlier filter, such as a minimum
    # rating, left seen items outside of the sequences.
    seen = None if sequences.seen is None else _renumbered(core.all_seen, new_indices, kept_items)
    core = replace(core, items=_renumbered(core.items, new_indices, kept_items), catalogue=catalogue, seen=seen)
    return core, {
        "k_core_rounds": rounds,
        "users_outside_k_core": len(sequences) - len(core),
        "items_outside_k_core": len(sequences.catalogue) - len(catalogue),
        "interactions_outside_k_core": int((~mask).sum()),
    }


def _renumbered(items: pa.ListArray, new_indices: np.ndarray, kept_items: np.ndarray) -> pa.ListArray:
    """Lists of items with the indices of the smaller catalogue, without items that are not in it."""
    values = items.values.to_numpy()
    is_kept = kept_items[values]
    counts = np.diff(np.append(0, np.cumsum(is_kept))[items.offsets.to_numpy()])
    return lists(counts, pa.array(new_indices[values[is_kept]]))
