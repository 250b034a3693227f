"""Locate a dataset (folder, package or Hub) and read its files. Fails at once if it exists nowhere."""

import functools
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RemoteEntryNotFoundError,
)

from trsr.assets.paths import dataset_path
from trsr.errors import DataError, UsageError
from trsr.records.files import read_json

_WAIT = 10.0  # seconds for the Hub to answer


def locate(source: str, revision: str | None = None) -> str:
    """The folder or the Hub id of a dataset, for `load_dataset`.

    Raises:
        DataError: If it looks like a folder and is none, or is not here and the Hub cannot be reached.
    """
    path = dataset_path(source)
    folder = Path(path)
    if folder.is_dir():
        return path
    # A Hub id has one slash at most; `data/x` is a folder that is not there where `data` is one here.
    looks_local = folder.is_absolute() or path[:1] in {".", "~"} or len(folder.parts) > 2 or folder.exists()
    if looks_local or (len(folder.parts) == 2 and folder.parent.is_dir()):
        raise DataError(f"No dataset folder at {source!r}. Make one with dataset_scripts/, or name a Hub dataset.")
    _check_hub(path, revision)
    return path


@functools.cache
def _check_hub(repo: str, revision: str | None) -> None:
    """Raise DataError where no dataset can have this id, or it is not in the cache and the Hub cannot be reached.

    Clients would try for half a minute.
    """
    try:
        if not isinstance(try_to_load_from_cache(repo, "README.md", repo_type="dataset", revision=revision), str):
            HfApi().dataset_info(repo, timeout=_WAIT)
    except HfHubHTTPError:
        return  # the Hub is there: whoever reads the dataset says what is wrong with it
    except (HTTPError, OSError, HFValidationError) as error:
        raise _not_read(repo, error) from error


def hub_file(repo: str, name: str, revision: str | None = None) -> Path | None:
    """A file of a Hub dataset in the cache; None if the dataset has no such file. Raises DataError if it cannot be read."""
    try:
        return Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision))
    except RemoteEntryNotFoundError:
        return None
    except (HTTPError, EntryNotFoundError, HFValidationError) as error:
        raise _not_read(repo, error) from None


def dataset_file(source: str, name: str, revision: str | None = None) -> Path | None:
    """A file of a dataset folder or Hub dataset; None if it has no such file. Raises DataError if it cannot be read."""
    path = Path(locate(source, revision)) / name
    if not path.parent.is_dir():
        return hub_file(source, name, revision)
    return path if path.is_file() else None


def dataset_json(source: str, name: str, revision: str | None = None, missing: Any = None) -> Any:
    """The content of a JSON file of a dataset; `missing` if it has no such file. Raises DataError if it cannot be read."""
    path = dataset_file(source, name, revision)
    try:
        return read_json(path) if path else missing
    except UsageError as error:
        raise DataError(f"{name} of {source!r} cannot be read: {error}") from error


def _not_read(repo: str, error: Exception) -> DataError:
    cause = " ".join(str(error).split())
    return DataError(f"No dataset {repo!r}: no such folder here, and not read from the Hub: {cause}")
