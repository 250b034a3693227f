"""Read a split batch by batch, its columns as the contract types them; whole rows only."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features, IterableDataset
from datasets.table import CastError
from tqdm.auto import tqdm

from trsr.dataset import contract
from trsr.dataset.check.findings import Findings, names, show

ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a split.

    Attributes:
        rows: Their places in the split, from 0.
        ids: What they are called: item or user ids.
        columns: Column -> values, one chunk each. No nulls in columns of the contract.
        stop: The place after the last row, whole or not.
    """

    config: str
    split: str
    rows: np.ndarray
    ids: pa.Array
    columns: dict[str, pa.Array]
    stop: int = 0


def batches(
    rows: IterableDataset,
    config: str,
    split: str,
    needed: Features,
    findings: Findings,
    *,
    extra: tuple[str, ...] = (),
    limit: int = 0,
) -> Iterator[Batch]:
    """Yield batches of a split; note what does not keep the contract.

    Args:
        needed: Columns of the contract, the one that names a row first among those that end in `_id`.
        extra: Columns that are passed on as they are, where they exist.
        limit: Rows to read; 0 = all.
    """
    schema = needed.arrow_schema
    key = next(name for name in schema.names if name.endswith("_id"))
    info = (rows.info.splits or {}).get(split)
    total = min(filter(None, (limit, info.num_examples if info else 0)), default=None)
    start = 0
    tables = rows.with_format("arrow").iter(batch_size=min(ROWS, limit or ROWS))
    with tqdm(total=total, desc=f"{config} {split}", unit="row", disable=None, mininterval=1) as bar:
        while not limit or start < limit:
            try:
                table = next(tables, None)
            except (CastError, TypeError) as error:
                # `datasets` reads every split as the first file of the config has it.
                findings.note("columns-differ", config, split, show(str(error).splitlines()[-1], 200))
                return
            if table is None:
                break
            if limit:
                table = table.slice(0, limit - start)
            if not start and not _fits(table.schema, schema, config, split, findings):
                return
            yield _batch(table, schema, (key, *extra), config, split, start, findings)
            start += table.num_rows
            bar.update(table.num_rows)
    if not start:
        findings.note("split-empty", config, split)


def _fits(got: pa.Schema, wanted: pa.Schema, config: str, split: str, findings: Findings) -> bool:
    """Whether the columns of the contract are there, typed as strings, lists of strings or integers as they should be."""
    fits = True
    for column in wanted:
        if column.name not in got.names:
            findings.note("column-missing", config, split, f"{column.name}; there are {names(got.names)}")
            fits = False
        elif kind(found := got.field(column.name).type) != kind(column.type):
            findings.note("column-type", config, split, f"{column.name} is {show(found)}, not {kind(column.type)}")
            fits = False
    return fits


def kind(found: pa.DataType) -> str:
    """A type as Python sees it: how wide offsets are makes no difference."""
    if pa.types.is_string(found) or pa.types.is_large_string(found):
        return "string"
    if pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found):
        return f"list of {kind(found.value_type)}"
    return "integer" if pa.types.is_integer(found) else str(found)


def _batch(
    table: pa.Table,
    schema: pa.Schema,
    others: tuple[str, ...],
    config: str,
    split: str,
    start: int,
    findings: Findings,
) -> Batch:
    key, *extra = others
    columns = {column.name: contract.one_chunk(table[column.name]).cast(column.type) for column in schema}
    extras = {name: contract.one_chunk(table[name]) for name in extra if name in table.column_names}
    rows = np.arange(start, start + table.num_rows)
    whole = np.ones(len(rows), bool)
    for name, values in columns.items():
        lacking = _nulls(values)
        missing = pa.array([name] * int(lacking.sum()), pa.string())
        findings.mark("value-missing", Batch(config, split, rows, columns[key], {}), np.flatnonzero(lacking), missing)
        whole &= ~lacking
    columns |= extras
    if not whole.all():
        columns = {name: values.filter(pa.array(whole)) for name, values in columns.items()}
    return Batch(config, split, rows[whole], columns[key], columns, start + table.num_rows)


def _nulls(values: pa.Array) -> np.ndarray:
    """Rows without a value, or with a list that holds none: (rows,) bool."""
    lacking = mask(pc.is_null(values))
    if pa.types.is_list(values.type) and (inner := values.flatten()).null_count:
        lacking[pc.list_parent_indices(values).filter(pc.is_null(inner)).to_numpy()] = True
    return lacking


def mask(values: pa.Array) -> np.ndarray:
    """A boolean column as numpy; null is False."""
    return values.fill_null(False).to_numpy(zero_copy_only=False).copy()
