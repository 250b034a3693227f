"""The data contract: features of each config, reading and writing dataset folders.

A dataset is a folder (or Hub repo) with one Parquet file a split and config, and a README whose header names them, so
that plain `load_dataset(folder, config)` reads it.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    IterableDataset,
    LargeList,
    List,
    Value,
    get_dataset_config_names,
    load_dataset,
    load_dataset_builder,
)
from datasets.exceptions import DatasetsError, NonMatchingSplitsSizesError
from datasets.fingerprint import generate_random_fingerprint

from trsr.dataset import card_info
from trsr.errors import DataError
from trsr.records.cards import header_of
from trsr.records.checksums import file_checksum
from trsr.records.datasets import dataset_file, dataset_json, locate
from trsr.records.files import whole_folder, write_json
from trsr.records.provenance import PROVENANCE_FILE, Provenance, Terms

SPLITS = ("train", "validation", "test")
RECOMMENDATIONS = "recommendations"  # the config of a dataset of these, and the folder of its files
HISTORIES = Features(
    {
        "user_id": Value("string"),
        "history": List(Value("string")),
        "target": Value("string"),
        "negatives": List(Value("string")),
    }
)
SUMMARIES = Features({**HISTORIES, "block_summaries": List(Value("string")), "summary": Value("string")})
SFT = Features(
    {
        "prompt": Value("string"),
        "completion": Value("string"),
        "user_id": Value("string"),
        "item_id": Value("string"),
        "label": Value("int64"),
    }
)
ITEM_COLUMNS = ("item_id", "title", "text")
AUDIT = "audit.json"
SUMMARY_CONFIGS = ("recurrent", "hierarchical")
ROW_CONFIGS = ("histories", *SUMMARY_CONFIGS)  # a row a user
SFT_CONFIGS = tuple(f"{config}_sft" for config in SUMMARY_CONFIGS)
CONFIGS = ("items", *ROW_CONFIGS, *SFT_CONFIGS)
# What may be lost when a dataset folder is replaced: what we write, what the Hub or a file manager adds, drafts of killed writers.
_REPLACED = (
    "README.md",
    PROVENANCE_FILE,
    AUDIT,
    *CONFIGS,
    "generations",
    ".gitattributes",
    ".cache",
    ".DS_Store",
    ".*.part",
)

Tables = Mapping[str, Mapping[str, Dataset]]


def items_features(columns: Iterable[str]) -> Features:
    """Features of `items`: every column is text."""
    return Features({name: Value("string") for name in columns})


def read(source: str, config: str, split: str, revision: str | None = None) -> Dataset:
    """Load one split of one config from a folder or the Hub.

    Raises:
        DataError: If the config, the split or a column of the contract is missing or of another type, an id is null, or the split
            is empty.
    """
    config_names = configs(source, revision)
    if config not in config_names:
        hint = (
            f" Run: trsr summarize {source} --method {config} --out DIR"
            if config in ("recurrent", "hierarchical")
            else ""
        )
        raise DataError(f"Dataset {source!r} has no config {config!r}; it has {', '.join(config_names)}.{hint}")
    return _read(source, config, split, revision)


def _read(source: str, config: str, split: str, revision: str | None) -> Dataset:
    """`read`, of a dataset that has the config."""
    data = load_split(source, config, split, revision)
    wanted = ITEM_COLUMNS if config == "items" else tuple(HISTORIES)
    missing = [name for name in wanted if not config.endswith("_sft") and name not in data.column_names]
    if missing:
        raise DataError(
            f"Dataset {source!r}, config {config!r}, split {split!r} lacks the columns {', '.join(missing)}; "
            f"it has {', '.join(data.column_names)}."
        )
    columns = [name for name in wanted if name in data.column_names]
    if others := [
        f"{name} is {data.features[name]}" for name in columns if not _holds_texts(name, data.features[name])
    ]:
        raise DataError(
            f"Dataset {source!r}, config {config!r}: ids and texts must be strings, but {others[0]}. Write them as strings, as "
            "dataset_scripts/ do."
        )
    if not len(data):
        raise DataError(f"Dataset {source!r}, config {config!r}: the split {split!r} is empty.")
    for name in HISTORIES if config in ROW_CONFIGS else ITEM_COLUMNS[:1] if config == "items" else ():
        if (row := _first_null(data.data.column(name))) is not None:
            is_list = isinstance(HISTORIES.get(name), List)
            fault = "is null, or has a null in it; expected a list of ids" if is_list else "is null; expected an id"
            raise DataError(
                f"Dataset {source!r}, config {config!r}, split {split!r}, row {row} (the first is 0): {name} {fault}. Fill it, or remove "
                f"the row. All such rows: trsr check {source}"
            )
    return data


def _first_null(column: pa.ChunkedArray) -> int | None:
    """The number of the first row that is null, or a list with a null in it; None if there is none."""
    start = 0
    for chunk in column.chunks:
        is_null = chunk.is_null()
        if pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type):
            inner = chunk.flatten()
            if inner.null_count:
                owners = pc.list_parent_indices(chunk).filter(inner.is_null())
                is_null = pc.or_(is_null, pc.is_in(pa.array(range(len(chunk)), owners.type), value_set=owners))
        if (row := pc.index(is_null, True).as_py()) >= 0:
            return start + row
        start += len(chunk)
    return None


def _holds_texts(name: str, feature: Any) -> bool:
    """Whether a column of the contract holds texts, or lists of them where it must; one without any value has no type."""
    if isinstance(HISTORIES.get(name), List):
        if not isinstance(feature, (List, LargeList)):
            return False
        feature = feature.feature
    return getattr(feature, "dtype", None) in ("string", "large_string", "string_view", "null")


def load_split(source: str, config: str, split: str, revision: str | None = None) -> Dataset:
    """One split of one config, whatever its columns. Raises DataError if it cannot be read."""
    location = locate(source, revision)
    try:
        cache = cache_of(location, config) if Path(location).is_dir() else None
        return load_dataset(location, config, split=split, revision=revision, cache_dir=cache)
    except NonMatchingSplitsSizesError as error:
        raise DataError(
            f"The files of dataset {source!r}, config {config!r}, do not hold the rows that its README.md counts, so they were changed "
            "since. Where that is meant, remove dataset_info from the header of README.md; else make the dataset again."
        ) from error
    except (ValueError, DatasetsError) as error:
        faulty, cause = _faulty_split(location, config) or (split, _causes(error))
        raise DataError(f"Dataset {source!r}, config {config!r}: cannot read split {faulty!r}: {cause}") from error


def _faulty_split(folder: str, config: str) -> tuple[str, str] | None:
    """The first split of a folder's config with a Parquet file that is none, or with no rows, and which of both; None if there is
    none, or `folder` is a Hub repo.

    To read one split, `datasets` prepares all of them, and fails at any.
    """
    if not Path(folder).is_dir():
        return None
    try:
        files = load_dataset_builder(folder, config).config.data_files or {}
    except (ValueError, DatasetsError):
        return None
    for split, paths in files.items():
        parquet = [path for path in paths if str(path).endswith(".parquet")]
        try:
            rows = sum(pq.read_metadata(path).num_rows for path in parquet)
        except (OSError, pa.ArrowException) as error:
            return str(split), _causes(error)
        if parquet and not rows:
            return str(split), "it is empty. Add rows to it, or remove it from the configs in the header of README.md."
    return None


def _causes(error: BaseException) -> str:
    """An error on one line, with its cause, which `datasets` leaves out of its own message."""
    whole = f"{error} ({error.__cause__})" if error.__cause__ else str(error)
    return " ".join(whole.split())


def cache_of(folder: str, config: str) -> str:
    """A cache for what the files of a folder's config hold now: by itself, `datasets` gives what files of these names once held."""
    files = load_dataset_builder(folder, config).config.data_files or {}
    checksum = hashlib.sha256()
    for split in sorted(files, key=str):
        for path in map(Path, files[split]):
            checksum.update(f"{split} {file_checksum(path) if path.is_file() else path}\n".encode())
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "trsr" / checksum.hexdigest()[:16])


def configs(source: str, revision: str | None = None) -> list[str]:
    """Names of the configs that a dataset has. Raises DataError if it has no such folder or repo, or its card cannot be read."""
    path = locate(source, revision)
    try:
        return get_dataset_config_names(path, revision=revision)
    except (ValueError, yaml.YAMLError) as error:
        cause = " ".join(str(error).split())
        raise DataError(
            f"Dataset {source!r} cannot be read: the header of its README.md is no YAML in UTF-8, or its configs are not those of a "
            f"dataset ({cause}). Fix it."
        ) from error


def stream(source: str, config: str, revision: str | None = None, batch: int = 1000) -> dict[str, IterableDataset]:
    """The splits of one config, read `batch` rows at a time as they are iterated over; nothing is copied to a cache.

    Columns are those of the files, whatever the card says of them.
    """
    builder = load_dataset_builder(locate(source, revision), config, revision=revision)
    builder.info.features = None
    if hasattr(builder.config, "batch_size"):
        # Of Parquet. The default is a row group, which may hold all rows, or none: that is an error then.
        builder.config.batch_size = batch
    return dict(builder.as_streaming_dataset())


def in_memory(table: pa.Table) -> Dataset:
    """A table of a config's features as rows."""
    # A fingerprint of its own making would be a hash of all texts.
    return Dataset(table, fingerprint=generate_random_fingerprint())


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    joined = column.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def tables(source: str, revision: str | None = None) -> dict[str, DatasetDict]:
    """Config -> splits of a dataset: items, histories and both kinds of summaries, where it has them."""
    present = configs(source, revision)
    return {
        config: DatasetDict({split: _read(source, config, split, revision) for split in splits})
        for config, splits in (("items", SPLITS[:1]), *((config, SPLITS) for config in ROW_CONFIGS))
        if config in present
    }


def shared_tables(tables: Tables, terms: Terms) -> dict[str, Mapping[str, Dataset]]:
    """The tables of a dataset as they may be passed on: without the items' texts where the terms keep them back."""
    items = tables["items"]["train"]
    return {**tables, "items": DatasetDict(train=items if terms.share_text else items.select_columns(["item_id"]))}


def texts(source: str, revision: str | None = None) -> dict[str, str]:
    """Item id to text, in catalogue order. Raises DataError as `texts_of` does."""
    return texts_of(read(source, "items", "train", revision), source)


def texts_of(items: Dataset, source: str) -> dict[str, str]:
    """Item id to text of the config `items` of `source`. Raises DataError for an item without text, or with several."""
    item_texts: dict[str, str] = {}
    for item_id, text in zip(items["item_id"], items["text"], strict=True):
        if item_id in item_texts:
            raise DataError(f"Item {item_id!r} of {source!r} has several rows. Keep one of them in the items config.")
        if not (text or "").strip():
            raise DataError(f"Item {item_id!r} of {source!r} has no text. Fill `text` in the items config.")
        item_texts[item_id] = text
    return item_texts


def read_items(source: str, revision: str | None = None) -> Dataset:
    """The config `items` as it is: of a release that may not share its texts, it holds ids alone."""
    if "items" not in configs(source, revision):
        raise DataError(f"Dataset {source!r} has no config 'items'.")
    return load_split(source, "items", "train", revision)


def check_ids(rows: Dataset, known: Mapping[str, object], place: str) -> None:
    """Raise DataError for the first id in `rows` that the catalogue does not know."""
    for table in rows.select_columns(list(HISTORIES)).with_format("arrow").iter(1000):
        for row in table.to_pylist():
            if missing := [name for name, value in row.items() if value is None]:
                raise DataError(f"{place}, user {row['user_id']!r}: {missing[0]} has no value. See: trsr check DATASET")
            for item_id in (*row["history"], row["target"], *row["negatives"]):
                if item_id not in known:
                    raise DataError(f"{place}, user {row['user_id']!r}: item {item_id!r} is not in the items config.")


def write(
    folder: Path,
    tables: Tables,
    *,
    provenance: Mapping[str, object],
    body: str,
    header: Mapping = {},
    audit: Mapping[str, object] | None = None,
) -> None:
    """Write a dataset folder, or nothing.

    The folder is written beside its place and moved there when complete. Same tables, same bytes.

    Args:
        folder: Replaced if it is a dataset folder already.
        tables: Config -> split -> rows. The first of `recurrent` and `histories` that is present is the default config.
        provenance: How the data was made; becomes `provenance.json`.
        body: Markdown of the card.
        header: More YAML for the card's header.
        audit: Of the summaries in `tables`; becomes `audit.json`.

    Raises:
        DataError: If a split is empty, or `folder` may not be replaced, see `check_replaceable`.
    """
    for config, splits in tables.items():
        for split, rows in splits.items():
            if not len(rows):
                raise DataError(f"Config {config!r}: the split {split!r} would be empty. Give more users.")
    made_by = Provenance(provenance, folder.name)
    check_replaceable(folder, tables, made_by)
    with whole_folder(folder) as draft:
        default = next((name for name in ("recurrent", "hierarchical", "histories") if name in tables), None)
        entries, infos = [], {}
        for config, splits in tables.items():
            (draft / config).mkdir()
            entry: dict[str, Any] = {"config_name": config, "data_files": []}
            for split, rows in splits.items():
                part_file = draft / config / "part.parquet"
                rows.to_parquet(part_file)
                # `datasets` caches a local folder by its name and header alone. With a checksum in the header, a folder
                # that is written anew, or that shares its name with another, is not read as what was there before.
                with part_file.open("rb") as file:
                    checksum = hashlib.file_digest(file, "sha256").hexdigest()[:16]
                path = f"{config}/{split}-00000-of-00001-{checksum}.parquet"
                part_file.rename(draft / path)
                entry["data_files"].append({"split": split, "path": path})
            files = {file["split"]: [draft / file["path"]] for file in entry["data_files"]}
            infos[config] = card_info.config_info(files)
            if config == default:
                entry["default"] = True
            entries.append(entry)
        terms = made_by.terms.header() if made_by.name else {}
        card_header = {**terms, **header, **card_info.header(infos), "configs": entries}
        top = yaml.safe_dump(card_header, sort_keys=False, allow_unicode=True)
        (draft / "README.md").write_text(f"---\n{top}---\n\n{body.strip()}\n", encoding="utf-8", newline="\n")
        (draft / PROVENANCE_FILE).write_text(
            json.dumps(provenance, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n"
        )
        if audit:
            write_json(draft / AUDIT, audit)


def check_replaceable(folder: Path, configs: Collection[str], provenance: Provenance) -> None:
    """Make sure that a dataset may take the place of what `folder` holds: nothing, or an earlier state of itself.

    Args:
        configs, provenance: Of the dataset to be written.

    Raises:
        DataError: If the folder holds something else, another dataset, other files beside the dataset, or summaries that this
            dataset lacks.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / PROVENANCE_FILE).is_file():
        raise DataError(f"{folder.resolve()} exists and is not a dataset folder of ours. Choose another, or empty it.")
    names = sorted(path.name for path in folder.iterdir())
    if others := [name for name in names if not any(fnmatchcase(name, pattern) for pattern in _REPLACED)]:
        shown = ", ".join(others[:3]) + f" and {len(others) - 3} more" * (len(others) > 3)
        raise DataError(
            f"{folder} holds {shown} beside its dataset, which would be lost. Choose another --out, or move what is no part of the "
            "dataset elsewhere."
        )
    before = Provenance(dataset_json(str(folder.resolve()), PROVENANCE_FILE, missing={}), str(folder))
    if before.name and provenance.name and before.name != provenance.name:
        raise DataError(
            f"{folder} holds the dataset {before.name!r}, not {provenance.name!r}. Choose another --out, or remove it."
        )
    generations = [(folder / "generations").is_dir(), "generations" in configs]
    if generations[0] != generations[1]:
        kinds = [("a dataset", "generations")[is_one] for is_one in generations]
        raise DataError(f"{folder} holds {kinds[0]}, not {kinds[1]}. Choose another folder, or remove it.")
    if before.has_summaries and not provenance.has_summaries:
        raise DataError(f"{folder} holds summaries, which would be lost. Choose another --out, or remove it.")
    if lost := set(before.summaries.methods) - set(provenance.summaries.methods):
        raise DataError(
            f"{folder} holds {' and '.join(sorted(lost))} summaries, which would be lost. Choose another --out, remove it, or make "
            "them anew too (--method)."
        )


def provenance(source: str, revision: str | None = None) -> Provenance:
    """The provenance of a dataset folder or Hub dataset, empty if it has none.

    Raises:
        DataError: If it cannot be read, or is not what it should be.
    """
    return Provenance(dataset_json(source, PROVENANCE_FILE, revision, missing={}), source)


def audit(source: str, revision: str | None = None) -> dict[str, Any] | None:
    """The audit of a dataset folder or Hub dataset, None if it has none."""
    return dataset_json(source, AUDIT, revision)


def header(source: str, revision: str | None = None) -> dict[str, Any]:
    """The YAML header of the card of a dataset folder or Hub dataset, empty if it has none."""
    path = dataset_file(source, "README.md", revision)
    return header_of(path) if path else {}
