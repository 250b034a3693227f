"""A log of interactions, a row each, as columns: users' sequences without a step in Python for every row.

Takes what needs no second look: plain ids, and times that are plain numbers. The rest is for `rows`, which says what is
wrong where something is.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trsr.blocks import Layout
from trsr.data import one_chunk
from trsr.rows import format_of
from trsr.sequences import Sequences, lists
from trsr.sources import Faults, Reading, Source, scan

Found = tuple[Sequences, dict[str, int]]
_LAYOUTS = {"csv": Layout(",", True), "tsv": Layout("\t", False)}
_ID = "^[!-~]+$"
# Fifteen digits are exact in a float.
_NUMBER = r"^-?[0-9]{1,12}(\.[0-9]{1,3})?$"


def read_columns(
    path: Path,
    catalogue: Collection[str],
    *,
    user: str,
    item: str,
    time: str | None = None,
    form: str | None = None,
    drop: bool = False,
) -> Found | None:
    """What users met, and counts; None where rows have to be looked at one by one.

    Args:
        time: Column that sorts a user's rows; equal times, and all rows without it, keep their order.
        form: A value of `rows.FORMATS`; default by the file's name.
        drop: Leave out items that are not in `catalogue`; else they have to be looked at.

    Raises:
        DataError: If there is no such file or format.
    """
    form = format_of(path, form)
    wanted = list(dict.fromkeys(name for name in (user, item, time) if name))
    table = _parquet(path, wanted) if form == "parquet" else _text(path, wanted, _LAYOUTS.get(form))
    if table is None or not len(table) or any(table[name].null_count for name in wanted):
        return None
    for name in {user, item}:
        if not pc.all(pc.match_substring_regex(table[name], _ID)).as_py():
            return None
    when = _numbers(table[time]) if time else np.zeros(len(table))
    if when is None:
        return None
    ids = pa.array(sorted(catalogue), pa.string())
    places = pc.index_in(table[item], value_set=ids)
    if places.null_count and not drop:
        return None
    users = one_chunk(table[user]).dictionary_encode()
    owner, known = users.indices.to_numpy(), places.is_valid().to_numpy()
    order = np.lexsort((when, owner))  # stable: equal times stay as they are
    order = order[known[order]]
    items = lists(
        np.bincount(owner[order], minlength=len(users.dictionary)), pc.take(one_chunk(places), pa.array(order))
    )
    sequences = Sequences(users.dictionary, items, ids)
    dropped = int(places.null_count)
    return sequences, {"rows_read": len(table), "interactions_read": len(table), "interactions_dropped": dropped}


def _text(path: Path, wanted: list[str], layout: Layout | None) -> pa.Table | None:
    if layout is None or path.suffix == ".gz":
        return None
    faults = Faults()
    source = Source(path, None, path.name, path.stat().st_size)
    try:
        parts = list(scan(source, layout, wanted, lambda table: (table, {}), faults, Reading(), workers=2))
    except ValueError:
        return None
    return pa.concat_tables(parts) if parts and not faults.counts else None


def _parquet(path: Path, wanted: list[str]) -> pa.Table | None:
    if path.suffix == ".gz":
        return None
    try:
        table = pq.read_table(path, columns=wanted)
    except (pa.ArrowException, OSError):
        return None
    plain = all(pa.types.is_string(kind) or pa.types.is_integer(kind) for kind in table.schema.types)
    if not plain or len(table.schema) < len(wanted):
        return None
    return pa.table({name: table[name].cast(pa.string()) for name in wanted})


def _numbers(values: pa.ChunkedArray) -> np.ndarray | None:
    if not pc.all(pc.match_substring_regex(values, _NUMBER)).as_py():
        return None
    return values.cast(pa.float64()).to_numpy()
