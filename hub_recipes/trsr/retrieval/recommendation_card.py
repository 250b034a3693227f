"""Card and provenance of recommendations: what they were made from. `load_dataset` of the folder then reads them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import DatasetInfo, Features
from huggingface_hub import DatasetCardData

from trsr.assets.paths import dataset_path
from trsr.dataset import card_info
from trsr.dataset.contract import RECOMMENDATIONS as CONFIG
from trsr.recommender.serving import pipeline_of
from trsr.records.checksums import PREFIX
from trsr.records.files import write_text
from trsr.records.provenance import PROVENANCE_FILE, Provenance
from trsr.report.templates import render
from trsr.retrieval.lists import SCHEMA

ARXIV = "arxiv:2403.13325"
_GATE = "These are ids and summaries of persons in data under: {}. Use them only as its terms allow."


def sources(source: str, checksum: str, model: str | None, commit: str | None) -> dict[str, str | None]:
    """Names and commits of dataset and recommender; of a folder, its name alone and no commit.

    Args:
        source: Folder or Hub id of the dataset.
        checksum: Of its histories, as they were read.
        model: Folder or Hub id of the recommender, or `nano`; None for the first stage alone.
        commit: Of a recommender on the Hub, as it was loaded.
    """
    dataset, recommender = Path(dataset_path(source)), Path(pipeline_of(model or ""))
    folders = dataset.is_dir(), model in (None, "nano") or recommender.is_dir()
    return {
        "dataset": dataset.resolve().name if folders[0] else source,
        "dataset_commit": None if checksum.startswith(PREFIX) else checksum,
        "recommender": Path(model).resolve().name if model and folders[1] else model,
        "recommender_commit": None if folders[1] else commit,
    }


def describe(
    out: Path, names: Sequence[str], made: Mapping[str, Any], provenance: Provenance, repo: str | None = None
) -> None:
    """Write the card and the provenance of finished recommendations.

    Args:
        names: Of the shards, in order.
        made: What they were made from and with which options.
        provenance: Of the dataset, whose terms hold for them too.
        repo: ORG/NAME that they are to be pushed to.
    """
    terms = provenance.terms
    files = {"split": "train", "path": [f"{CONFIG}/{name}" for name in names]}
    own_terms: dict[str, Any] = terms.header() if provenance.name else {}
    if not terms.share_text:
        own_terms["extra_gated_prompt"] = _GATE.format(terms.license_name or terms.license)
    header = DatasetCardData(
        pretty_name=(repo or out.resolve().name).split("/")[-1],
        task_categories=["text-ranking"],
        tags=["llm-trsr", "recommendation", ARXIV],
        configs=[{"config_name": CONFIG, "data_files": [files], "default": True}],
        **own_terms,
        **card_info.header({CONFIG: DatasetInfo(features=Features.from_arrow_schema(SCHEMA), config_name=CONFIG)}),
    )
    title = repo or out.resolve().name
    about = {"name": provenance.name or "dataset", "terms": terms, "made_up": provenance.made_up}
    record = {**provenance.values, CONFIG: made}
    write_text(out / PROVENANCE_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    write_text(out / "README.md", render("recommendations", {**about, "made": made, "title": title}, header.to_dict()))
