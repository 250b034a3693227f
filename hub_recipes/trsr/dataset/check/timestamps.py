"""Rules for the optional column `timestamps`: a number or an Arrow timestamp for each item, oldest first."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from trsr.dataset.check.batches import Batch, kind
from trsr.dataset.check.findings import Findings, show
from trsr.dataset.time_units import UNITS, UNKNOWN, unit_indices


class Times:
    """Checks the timestamps of a dataset, split by split in the order of time.

    Attributes:
        seen: Whether there were any timestamps.
    """

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._newest: dict[str, float] = {}
        self._refused: set[str] = set()
        self._unit: int | None = None
        self.seen = False

    def note_built(self, counts: Mapping[str, object]) -> None:
        """Note units and time zones that the build counted in the log, for the dataset itself need not have times."""
        units = [
            f"{count:,} in {unit.replace('_', ' ')}"
            for unit in (*UNITS, UNKNOWN)
            if isinstance(count := counts.get(f"times_in_{unit}"), int)
        ]
        if units:
            self.findings.note("timestamps-units", shown=f"in the log: {', '.join(units)}")
        zones = [counts.get(f"dates_{which}_time_zone") for which in ("with", "without")]
        if all(isinstance(count, int) for count in zones):
            self.findings.note("timestamps-zones", shown=f"in the log: {zones[0]:,} with, {zones[1]:,} without")

    def mark(self, batch: Batch) -> None:
        """Apply the rules to a batch."""
        column = batch.columns.get("timestamps")
        if column is None or batch.split in self._refused:
            return
        if not kind(column.type).startswith("list of ") or (flat := _numbers(column.flatten())) is None:
            self._refused.add(batch.split)
            message = f"timestamps is {show(column.type)}, not a list of numbers or timestamps without nulls and NaN"
            self.findings.note("column-type", batch.config, batch.split, message)
            return
        lengths = column.value_lengths().fill_null(0).to_numpy().astype(np.int64)
        items = batch.columns["history"].value_lengths().to_numpy()
        self.findings.mark("timestamps-length", batch, (lengths != items) & (lengths != items + 1))
        rows = np.repeat(np.arange(len(lengths)), lengths)
        decreases = (flat[1:] < flat[:-1]) & (rows[1:] == rows[:-1])
        self.findings.mark("timestamps-order", batch, rows[1:][decreases])
        self.seen = True
        non_empty = np.flatnonzero(lengths)
        with_target = np.flatnonzero((lengths == items + 1) & (items > 0))
        ends = lengths.cumsum()[with_target]
        self.findings.mark("target-time-tied", batch, with_target[flat[ends - 1] == flat[ends - 2]])
        if not len(non_empty):
            return
        last = flat[lengths.cumsum()[non_empty] - 1]
        if not pa.types.is_temporal(column.type.value_type):
            self._mark_units(batch, flat, rows)
        earlier = [newest for split, newest in self._newest.items() if split != batch.split]
        if earlier:
            self.findings.mark("timestamps-split", batch, non_empty[last < max(earlier)])
        self._newest[batch.split] = max(last.max(), self._newest.get(batch.split, last.max()))

    def _mark_units(self, batch: Batch, times: np.ndarray, rows: np.ndarray) -> None:
        """Mark rows with times in another unit than the first time of the dataset."""
        units = unit_indices(times)
        indices = np.flatnonzero(units >= 0)
        if len(indices) and self._unit is None:
            self._unit = int(units[indices[0]])
        self.findings.mark("timestamps-units", batch, rows[indices[units[indices] != self._unit]])


def _numbers(values: pa.Array) -> np.ndarray | None:
    """Timestamps as numbers, (n,); None if they are of another type, have nulls, or are not finite."""
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("us")).cast(pa.int64())
    if values.null_count or not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        return None
    numbers = values.to_numpy()
    return numbers if np.isfinite(numbers).all() else None
