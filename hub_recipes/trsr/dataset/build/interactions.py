"""Turn a log of interactions, or of users with lists of items, into the sequence of items of each user, oldest first."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trsr.dataset.build.sequences import Sequences, lists
from trsr.dataset.contract import one_chunk
from trsr.dataset.time_units import UNITS, count_units, seconds_of_days, unit_indices
from trsr.errors import DataError


def build_sequences(
    table: pa.Table, ids: pa.Array, *, drop: bool = False, min_rating: float | None = None
) -> tuple[Sequences, dict[str, int]]:
    """The sequences of all users, and counts; if times seem to be in several units, also how many are in each, if some dates have
    a time zone and some not, how many, and if interactions repeat others, how many.

    Args:
        table: `user`, `item` and optionally `time`, by which a user's rows are sorted. Rows with equal times, and all rows if
            there is no `time`, keep their order; one without a time counts as met, and stands in no sequence. Optionally
            `dated`: which of the times were dates, and `zoned`: which were dates with a time zone. Or `user` and `items`, one
            row for each user.
        ids: Ids of all items, sorted.
        drop: Leave out items that are not in `ids` instead of raising an error.
        min_rating: Use rows whose `rating` is at least this high; the others still count as seen.

    Raises:
        DataError: If an item is unknown, or a user has several lists.
    """
    without_time = table["time"].null_count if "time" in table.column_names else 0
    if without_time:
        table = _of_known_users_and_items(table, ids)
    # Texts stay in their chunks: an array of strings holds 2 GB.
    users = one_chunk(table["user"].dictionary_encode().unify_dictionaries())
    owner = users.indices.to_numpy()
    items = table["items" if "items" in table.column_names else "item"]
    if pa.types.is_list(items.type):
        items = one_chunk(items)
        if len(users.dictionary) < len(owner):
            repeated = users.dictionary[int(np.argmax(np.bincount(owner)))].as_py()
            raise DataError(f"User {repeated!r} has several rows; with --list-column a user has one.")
        owner, items = owner[pc.list_parent_indices(items).to_numpy()], items.flatten()
    indices = pc.index_in(items, value_set=ids)
    if isinstance(indices, pa.ChunkedArray):
        indices = one_chunk(indices)
    if indices.null_count and not drop:
        unknown = items.filter(indices.is_null())[0].as_py()
        raise DataError(
            f"Item {unknown!r} is not in the items file, where ids are as {ids[0].as_py()!r} is; {indices.null_count:,} of "
            f"{len(items):,} interactions are with such items. Add them, or give --drop-unknown."
        )
    has_times = "time" in table.column_names
    times = table["time"].to_numpy() if has_times else np.zeros(len(owner))
    order = np.lexsort((times, owner))  # stable: rows with equal times keep their order
    order = order[indices.is_valid().to_numpy(zero_copy_only=False)[order]]
    lengths = np.bincount(owner[order], minlength=len(users.dictionary))
    sequences = Sequences(
        users.dictionary,
        lists(lengths, indices.take(pa.array(order))),
        ids,
        times=lists(lengths, pa.array(times[order])) if has_times else None,
    )
    timed = np.isfinite(times)
    counts = {"interactions_read": int(timed.sum()), "interactions_dropped": indices.null_count}
    if without_time:
        counts["interactions_without_time"] = without_time
    used = timed[order]
    if has_times:
        dated, zoned_dates = (
            timed & table[name].to_numpy() if name in table.column_names else np.zeros(len(times), bool)
            for name in ("dated", "zoned")
        )
        units = count_units(np.where(dated, UNITS["seconds"], times)[timed])
        if len(units) > 1:
            counts |= {f"times_in_{unit}": count for unit, count in units.items()}
        zoned = int(zoned_dates.sum())
        if zoned and (local := int(dated.sum()) - zoned):
            counts |= {"dates_with_time_zone": zoned, "dates_without_time_zone": local}
        if repeated := _count_repeated(owner[order], times[order], sequences.items.values.to_numpy()):
            counts["interactions_repeated"] = repeated
    if min_rating is None:
        return sequences.where(used), counts
    ratings = table["rating"].to_numpy()[order]  # NaN if there is none
    counts |= {
        "interactions_without_rating": int(np.isnan(ratings[used]).sum()),
        "interactions_below_min_rating": int((ratings[used] < min_rating).sum()),
    }
    return sequences.where(used & (ratings >= min_rating)), counts


def with_days_as_dates(table: pa.Table) -> pa.Table:
    """The log with times such as 20010916 read as dates, which ISO 8601 allows, if all its times of no known unit are days.

    Args:
        table: With `time`, in numbers, and `dated`: which of them were dates.
    """
    times, dated = table["time"].to_numpy(), table["dated"].to_numpy()
    without_unit = np.isfinite(times) & ~dated & (unit_indices(times) < 0)
    seconds = seconds_of_days(times[without_unit])
    if seconds is None:
        return table
    times = times.copy()
    times[without_unit] = seconds
    columns = {"time": pa.array(times, from_pandas=True), "dated": pa.array(dated | without_unit)}
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _of_known_users_and_items(table: pa.Table, ids: pa.Array) -> pa.Table:
    """The rows with a time, and those without one whose users have a row with a time, and whose items are known."""
    timed = table["time"].is_valid()
    users = pc.unique(table["user"].filter(timed))
    of_both = pc.and_(pc.is_in(table["user"], value_set=users), pc.is_in(table["item"], value_set=ids))
    return table.filter(pc.or_(timed, of_both))


def _count_repeated(owner: np.ndarray, times: np.ndarray, items: np.ndarray) -> int:
    """Number of interactions with the user, item and time of another one; all arrays are sorted by user and time."""
    same = (owner[1:] == owner[:-1]) & (times[1:] == times[:-1])
    tied = np.flatnonzero(np.append(False, same) | np.append(same, False))
    keys = [column[tied] for column in (items, times, owner)]
    in_order = np.lexsort(keys)
    return int(np.logical_and.reduce([key[in_order][1:] == key[in_order][:-1] for key in keys]).sum())
