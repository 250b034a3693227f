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
    """Leave out users and items with fewer than `k` interactions, again and again, until all have as many.

    An item that a user met twice counts twice. Items that are left out leave the catalogue, too.

    Returns:
        What is left, and counts.

    Raises:
        DataError: If nothing is left.
    """
    items = sequences.items.values.to_numpy()
    owner = np.repeat(np.arange(len(sequences)), lengths(sequences.items))
    stays, rounds = np.ones(len(items), bool), 0
    while True:
        of_user = np.bincount(owner[stays], minlength=len(sequences))
        of_item = np.bincount(items[stays], minlength=len(sequences.catalogue))
        fits = stays & (of_user[owner] >= k) & (of_item[items] >= k)
        if fits.sum() == stays.sum():
            break
        stays, rounds = fits, rounds + 1
    if not stays.any():
        raise DataError(
            f"--k-core {k} leaves nothing: no {k} users and items have {k} interactions among themselves. Ask for fewer."
        )
    kept_users, kept_items = np.flatnonzero(of_user), of_item > 0
    places = np.cumsum(kept_items, dtype=np.int32) - 1  # in the smaller catalogue
    made = sequences.where(stays).take(kept_users)
    catalogue = sequences.catalogue.take(pa.array(np.flatnonzero(kept_items)))
    # Among users and items that stay, all interactions do: only an earlier cut leaves something that was met beside them.
    met = None if sequences.met is None else _renumbered(made.all_met, places, kept_items)
    made = replace(made, items=_renumbered(made.items, places, kept_items), catalogue=catalogue, met=met)
    return made, {
        "k_core_rounds": rounds,
        "users_outside_k_core": len(sequences) - len(made),
        "items_outside_k_core": len(sequences.catalogue) - len(catalogue),
        "interactions_outside_k_core": int((~stays).sum()),
    }


def _renumbered(items: pa.ListArray, places: np.ndarray, kept: np.ndarray) -> pa.ListArray:
    """Lists of items as places in the smaller catalogue, without items that are not in it."""
    values = items.values.to_numpy()
    stays = kept[values]
    counts = np.diff(np.append(0, np.cumsum(stays))[items.offsets.to_numpy()])
    return lists(counts, pa.array(places[values[stays]]))
