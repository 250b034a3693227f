"""What a trained summariser was made from, as its folder records it."""

import logging
from pathlib import Path

from trsr.recommender.run import data_checksums
from trsr.records.files import read_json

RECORD = "training.json"  # holds no times: the adapter's checksum covers it, and the same work gives the same checksum

logger = logging.getLogger(__name__)


def warn_of_other_users(adapter: Path, source: str, revision: str | None = None) -> None:
    """Say so where a summariser saw next items of other histories than those of the dataset that it is to summarise.

    Its training users may then stand in validation or test there, and figures on them would be too good.

    Args:
        adapter: Folder of an adapter; one that `train-summarizer` did not write says nothing.
        source: Folder or Hub id of the dataset.
    """
    record = read_json(adapter / RECORD) if (adapter / RECORD).is_file() else {}
    checksum = record.get("made_from", {}).get("dataset", {}).get("histories")
    if checksum and checksum != (now := data_checksums(source, "histories", revision)["histories"]):
        logger.warning(
            f"{adapter} was trained on next items of other histories than those of {source} ({checksum}, not {now}). Where its training "
            "users stand in validation or test here, figures on them will be too good."
        )
