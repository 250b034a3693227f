"""A log of interactions, or of users with lists of items -> what each user met, oldest first."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trsr.dataset.build.sequences import Sequences, lists
from trsr.dataset.contract import one_chunk
from trsr.dataset.time_units import UNITS, count_units
from trsr.errors import DataError


def in_order(
    table: pa.Table, ids: pa.Array, *, drop: bool = False, min_rating: float | None = None
) -> tuple[Sequences, dict[str, int]]:
    """What users met, and counts: with times also of times in several units.

    Args:
        table: `user`, `item` and optionally `time`, which sorts a user's rows: equal times, and all rows without it,
            keep their order. Optionally `dated`, which of the times were dates. Or `user` and `items`, one row a user.
        ids: Of all items, sorted.
        drop: Leave out items that are not in `ids` instead of raising.
        min_rating: Take rows whose `rating` is at least as high; the others were met all the same.

    Raises:
        DataError: If an item is unknown, or a user has several lists.
    """
    users = one_chunk(table["user"]).dictionary_encode()
    owner = users.indices.to_numpy()
    items = one_chunk(table["items" if "items" in table.column_names else "item"])
    if pa.types.is_list(items.type):
        if len(users.dictionary) < len(owner):
            twice = users.dictionary[int(np.argmax(np.bincount(owner)))].as_py()
            raise DataError(f"User {twice!r} has several rows; with --list-column a user has one.")
        owner, items = owner[pc.list_parent_indices(items).to_numpy()], items.flatten()
    places = pc.index_in(items, value_set=ids)
    if places.null_count and not drop:
        first = items.filter(places.is_null())[0].as_py()
        raise DataError(
            f"Item {first!r} is not in the items file, where ids are as {ids[0].as_py()!r} is; {places.null_count:,} of "
            f"{len(items):,} interactions are with such items. Add them, or give --drop-unknown."
        )
    timed = "time" in table.column_names
    times = table["time"].to_numpy() if timed else np.zeros(len(owner))
    order = np.lexsort((times, owner))  # stable: equal times stay as they are
    order = order[places.is_valid().to_numpy(zero_copy_only=False)[order]]
    lengths = np.bincount(owner[order], minlength=len(users.dictionary))
    found = Sequences(
        users.dictionary,
        lists(lengths, places.take(pa.array(order))),
        ids,
        times=lists(lengths, pa.array(times[order])) if timed else None,
    )
    counts = {"interactions_read": len(items), "interactions_dropped": places.null_count}
    if timed:
        dated = table["dated"].to_numpy() if "dated" in table.column_names else np.zeros(len(times), bool)
        units = count_units(np.where(dated, UNITS["seconds"], times))
        if len(units) > 1:
            counts |= {f"times_in_{unit}": count for unit, count in units.items()}
    if min_rating is None:
        return found, counts
    ratings = table["rating"].to_numpy()[order]  # NaN where there is none
    counts |= {
        "interactions_without_rating": int(np.isnan(ratings).sum()),
        "interactions_below_min_rating": int((ratings < min_rating).sum()),
    }
    return found.where(ratings >= min_rating), counts
