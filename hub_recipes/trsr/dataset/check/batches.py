"""Read a split in batches, with the columns and types of the contract. Rows with missing values are noted and left out."""

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
        rows: Their numbers in the split, from 0.
        ids: The ids that name the rows, of items or users.
        columns: Column -> values, one chunk each. Columns of the contract have no nulls.
        stop: Number after that of the last row, including rows that were left out.
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
    """Yield batches of a split; violations of the contract are noted.

    Args:
        needed: Columns of the contract. The first one that ends in `_id` names the rows.
        extra: Other columns that are passed on unchanged, if they exist.
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
                # `datasets` reads every split with the columns and types of the config's first file.
                findings.note("columns-differ", config, split, show(str(error).splitlines()[-1], 200))
                return
            if table is None:
                break
            if limit:
                table = table.slice(0, limit - start)
            if not start and not _has_columns(table.schema, schema, config, split, findings):
                return
            yield _batch(table, schema, (key, *extra), config, split, start, findings)
            start += table.num_rows
            bar.update(table.num_rows)
    if not start:
        findings.note("split-empty", config, split)


def _has_columns(present: pa.Schema, wanted: pa.Schema, config: str, split: str, findings: Findings) -> bool:
    """Whether all columns of the contract are present with the right types; others are noted."""
    complete = True
    for column in wanted:
        if column.name not in present.names:
            findings.note("column-missing", config, split, f"{column.name}; there are {names(present.names)}")
            complete = False
        elif kind(value_type := present.field(column.name).type) != kind(column.type):
            findings.note("column-type", config, split, f"{column.name} is {show(value_type)}, not {kind(column.type)}")
            complete = False
    return complete


def kind(value_type: pa.DataType) -> str:
    """The name of a type, the same for Arrow's variants with 32-bit and 64-bit offsets."""
    if pa.types.is_string(value_type) or pa.types.is_large_string(value_type):
        return "string"
    if pa.types.is_list(value_type) or pa.types.is_large_list(value_type) or pa.types.is_fixed_size_list(value_type):
        return f"list of {kind(value_type.value_type)}"
    return "integer" if pa.types.is_integer(value_type) else str(value_type)


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
    is_complete = np.ones(len(rows), bool)
    for name, values in columns.items():
        is_null = _nulls(values)
        missing = pa.array([name] * int(is_null.sum()), pa.string())
        findings.mark("value-missing", Batch(config, split, rows, columns[key], {}), np.flatnonzero(is_null), missing)
        is_complete &= ~is_null
    columns |= extras
    if not is_complete.all():
        columns = {name: values.filter(pa.array(is_complete)) for name, values in columns.items()}
    return Batch(config, split, rows[is_complete], columns[key], columns, start + table.num_rows)


def _nulls(values: pa.Array) -> np.ndarray:
    """Which rows are null, or a list with a null in it: (rows,) bool."""
    is_null = mask(pc.is_null(values))
    if pa.types.is_list(values.type) and (inner := values.flatten()).null_count:
        is_null[pc.list_parent_indices(values).filter(pc.is_null(inner)).to_numpy()] = True
    return is_null


def mask(values: pa.Array) -> np.ndarray:
    """A boolean column as numpy; null is False."""
    return values.fill_null(False).to_numpy(zero_copy_only=False).copy()
