"""Cards of a release: the templates of model_cards/, rendered with the facts of its run.

Strict: a missing value fails the render, and every figure comes from a results file or a run's record. Values are data: they
can neither close the header nor become markup or template code. In a template a value never opens a line, see `plain`.
"""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from huggingface_hub import DatasetCardData, ModelCardData, SpaceCardData

from trsr.core.catalogue import fitted_stage_one
from trsr.dataset import contract
from trsr.hub import copy_cards, eval_results, spaces
from trsr.hub.facts import Example, Facts
from trsr.hub.repos import COPIES
from trsr.recommender.results import metric_name
from trsr.report.markdown import Markdown, code, fence
from trsr.report.templates import render

ARXIV = "2403.13325"
GRADIO = "6.31.0"
_GATE = "These are ids and summaries of data under: {}. Use them only as its terms allow."
_POWERS = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")

# Kind of repo -> relation to the base, library, and tags of its own.
_MODELS: Mapping[str, tuple[str, str, list[str]]] = {
    "adapter": ("adapter", "peft", ["lora"]),
    "pipeline": ("adapter", "transformers", ["lora"]),
    "cross-encoder": (
        "adapter",
        "sentence-transformers",
        ["lora", "sentence-transformers", "cross-encoder", "reranker"],
    ),
    "merged": ("merge", "transformers", []),
    "gguf": ("quantized", "gguf", ["gguf", "llama.cpp"]),
}


def card(kind: str, facts: Facts, commits: Mapping[str, str | None]) -> str:
    """The whole README.md of a repo.

    Args:
        kind: Of `repos.TYPES`, but for `base`, whose card is made when it is trained.
        commits: Kind of repo -> commit, where known.
    """
    template = "metric" if kind in spaces.METRICS else kind
    return render(template, _values(kind, facts, commits), _header(kind, facts, commits).to_dict())


def skill(facts: Facts, commits: Mapping[str, str | None]) -> str:
    """SKILL.md of the pipeline repo: what an agent has to know to use it. Rendered from the same values as the card."""
    name = facts.names.pipeline.split("/")[-1]
    choices = "candidates to order by preference" + (", or none: it has a catalogue" if facts.catalogue else "")
    description = (
        f"Rank items by their text for a person, given what the person chose before, with the recommender {name}. Use it when "
        f"there is a history of items with titles or descriptions, and {choices}."
    )
    header = {
        "name": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:64],
        "description": description,
        "license": "apache-2.0",
    }
    return render("skill", _values("pipeline", facts, commits), header)


def _values(kind: str, facts: Facts, commits: Mapping[str, str | None]) -> dict[str, object]:
    """What the templates show."""
    methods = [name for name in contract.SUMMARY_CONFIGS if name in (facts.rows or {})]
    at = Markdown("" if facts.branch == "main" else f", revision={code(facts.branch)}")
    return {
        "at": at,
        "at_dataset": at if "dataset" in facts.names.own else Markdown(""),
        "branch": Markdown(shlex.quote(facts.branch)),
        "facts": facts,
        "names": facts.names,
        "recipe": Markdown(fence(code(_reproducible(facts, commits), 2), "json")),
        "base_revision": commits.get("base") or "main",
        "dataset_revision": commits.get("dataset") or "main",
        "method": facts.recipe.summary,
        "methods": methods,
        "request": Markdown(code(facts.example.request)) if facts.example else None,
        "history": Markdown(code(facts.example.request["history"])) if facts.example else None,
        "decision_request": Markdown(code(_decision_request(facts.example))) if facts.example else None,
        "rows_printed": Markdown(fence("\n".join(facts.printed), "text")),
        "printed": Markdown(fence(_printed(facts.example), "text")) if facts.example else None,
        "shown": methods[0] if methods else "histories",
        "metric": kind,
        "catalogue": facts.catalogue if kind == "pipeline" else None,
        "stage_one": fitted_stage_one(facts.catalogue or {}),
        "metric_name": metric_name,
        **(copy_cards.values(kind, facts) if kind in COPIES else {}),
    }


def _reproducible(facts: Facts, commits: Mapping[str, str | None]) -> dict[str, object]:
    """The recipe with base and dataset as Hub ids and commits, in place of local paths."""
    on_hub = {
        "base": facts.names.base,
        "base_revision": commits.get("base"),
        "dataset": facts.names.dataset,
        "dataset_revision": commits.get("dataset"),
    }
    # A folder of this machine. Training needs the summaries alone, which are in the dataset.
    recipe = {name: value for name, value in facts.recipe.to_dict().items() if name != "summarizer"}
    return recipe | on_hub


def _decision_request(example: Example) -> dict[str, object]:
    """The example's request in the form of decision models, about its second candidate alone."""
    state = {"summary": example.summary} if example.summary else {}
    chosen = {"type": "noul", "instructions": example.request["candidates"][1]}
    return {"state": {**state, "recent_items": example.request["history"]}, "questions": {"chosen": chosen}}


def _printed(example: Example) -> str:
    """Output of the code snippet in `parts/example.md`."""
    return "\n".join(([example.summary] if example.summary else []) + [str(list(example.ranked))])


def _header(kind: str, facts: Facts, commits: Mapping[str, str | None]):
    names, terms = facts.names, facts.terms
    tags = ["llm-trsr", "recommendation", f"arxiv:{ARXIV}"]
    if kind in _MODELS:
        relation, library, own_tags = _MODELS[kind]
        decides = facts.has_decision_files and kind not in ("cross-encoder", "gguf")
        return ModelCardData(
            base_model=names.base,
            base_model_relation=relation,
            library_name=library,
            pipeline_tag="text-ranking",
            tags=[*tags, *own_tags, *(["decision-model"] if decides else [])],
            datasets=[names.dataset],
            language=list(terms.language),
            license=facts.license,
            license_name=facts.license_name,
            license_link=facts.license_link,
            model_name=names.repo(kind),
            eval_results=eval_results.model_index(
                facts.test, names.dataset, facts.recipe.config, commits.get("dataset"), dataset_name=terms.name
            ),
        )
    if kind == "dataset":
        gate: dict[str, Any] = {}
        if not terms.share_text:
            gate["extra_gated_prompt"] = _GATE.format(terms.license_name or terms.license)
        return DatasetCardData(
            pretty_name=re.sub(r"\W+", " ", names.dataset.split("/")[-1]).strip(),
            task_categories=["text-ranking"],
            tags=tags,
            size_categories=[size_category(sum(sum(splits.values()) for splits in (facts.rows or {}).values()))],
            **terms.header(),
            **facts.header,
            **gate,
        )
    appearance: dict[str, Any] = {
        "emoji": "📚",
        "colorFrom": "indigo",
        "colorTo": "green",
        "sdk": "gradio",
        "sdk_version": GRADIO,
    }
    if kind == "space":
        # The bases that travel with a release are small; the hardware that another base needs is not known here.
        hardware: dict[str, Any] = {"suggested_hardware": "cpu-basic"} if "base" in names.own else {}
        return SpaceCardData(
            title=names.space.split("/")[-1],
            app_file="app.py",
            models=[names.pipeline, names.adapter, names.base],
            datasets=[names.dataset],
            preload_from_hub=spaces.preloaded(facts.files, names.repo, commits) if not facts.restricted else None,
            license="apache-2.0",
            short_description="Rank items by their text, after LLM-TRSR",
            tags=tags,
            **hardware,
            **appearance,
        )
    return SpaceCardData(
        title=kind, app_file="app.py", license="apache-2.0", tags=["evaluate", "metric", *tags[:2]], **appearance
    )


def size_category(rows: int) -> str:
    """Size category of the Hub for a number of rows, all configs and splits together: `10K<n<100K`."""
    for index, name in enumerate(_POWERS):
        if rows < 10 ** (index + 3):
            return f"{_POWERS[index - 1]}<n<{name}" if index else f"n<{name}"
    return f"n>{_POWERS[-1]}"
