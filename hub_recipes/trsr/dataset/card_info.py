"""`dataset_info` of a dataset card: columns and sizes of each config, so that nobody has to read the files to know them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from huggingface_hub import DatasetCardData


def config_info(files: Mapping[str, Sequence[Path]]) -> DatasetInfo:
    """What `datasets` finds out when it reads a config.

    Args:
        files: Split -> its Parquet files, all of the same columns.
    """
    first = next(path for paths in files.values() for path in paths)
    splits = SplitDict()
    for split, paths in files.items():
        rows = sum(pq.read_metadata(path).num_rows for path in paths)
        splits.add(SplitInfo(split, sum(map(_size_in_arrow, paths)), rows))
    return DatasetInfo(
        features=Features.from_arrow_schema(pq.read_schema(first)),
        splits=splits,
        download_size=sum(path.stat().st_size for paths in files.values() for path in paths),
        dataset_size=sum(split.num_bytes for split in splits.values()),
    )


def header(configs: Mapping[str, DatasetInfo]) -> dict[str, Any]:
    """The field `dataset_info` of a card's header, in the form that `Dataset.push_to_hub` gives it."""
    data = DatasetCardData()
    DatasetInfosDict(configs).to_dataset_card_data(data)
    return data.to_dict()


def _size_in_arrow(path: Path) -> int:
    """Bytes of a Parquet file's rows in memory, read in batches of its first row group's size, as `datasets` reads it."""
    with pq.ParquetFile(path) as file:
        rows = max(1, file.metadata.row_group(0).num_rows if file.num_row_groups else 1)
        return sum(batch.nbytes for batch in file.iter_batches(batch_size=rows))
