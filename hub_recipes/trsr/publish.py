"""Assemble a release folder from a finished run: base, dataset, adapter, pipeline.

The folder is whole in itself: the pipeline names base and adapter by relative paths, so it can be moved.
"""

import json
import re
import shutil
from pathlib import Path

import yaml
from datasets import Dataset, DatasetDict
from transformers import AutoConfig, AutoTokenizer

from trsr import data
from trsr.core.history import Item
from trsr.core.modeling import PROMPT_FILE
from trsr.core.prompts import RankingPrompt
from trsr.embedded import TASK, base_path
from trsr.evaluate import table
from trsr.recipe import Recipe, build_recipe
from trsr.train import labelled, ranking_prompt, write_adapter_config

CORE = Path(__file__).parent / "core"


def assemble(run: Path, release: Path, dataset: str, results: dict[str, object]) -> None:
    """Write `release`/{base,dataset,adapter,pipeline} from a run on `dataset`, a folder with summaries.

    The base is copied only where it is a local one; a base on the Hub is named by id and revision.
    """
    recipe = build_recipe(yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8")))
    source = base_path(recipe.base)
    local = Path(source).is_dir()
    draft = release.with_name(f".{release.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    if local:
        shutil.copytree(source, draft / "base")
    shutil.copytree(run / "adapter", draft / "adapter")
    write_adapter_config(draft / "adapter", "../base" if local else recipe.base)
    write_pipeline(draft / "pipeline", recipe, "../base" if local else recipe.base, "../adapter", source)
    write_dataset(draft / "dataset", recipe, dataset, results)
    shutil.rmtree(release, ignore_errors=True)
    draft.rename(release)


def write_pipeline(
    folder: Path, recipe: Recipe, base: str, adapter: str, source: str, adapter_revision: str | None = None
) -> None:
    """Write a pipeline repo: code, config and tokenizer, no weights.

    Args:
        base: What the config names as base: a Hub id, or a path relative to `folder`.
        adapter: The same for the adapter.
        source: Where base and tokenizer are read from now.
    """
    folder.mkdir(parents=True)
    config = AutoConfig.from_pretrained(source, revision=recipe.base_revision).to_dict()
    config |= {
        "auto_map": {"AutoModelForCausalLM": "modeling.TextRichRecommender"},
        "custom_pipelines": {
            TASK: {"impl": "pipeline.TextRichRecommendationPipeline", "pt": ["AutoModelForCausalLM"], "type": "text"}
        },
        "trsr": {
            "base_model": base,
            "base_revision": recipe.base_revision,
            "adapter": adapter,
            "adapter_revision": adapter_revision,
            "ranking_prompt": ranking_prompt(recipe).to_dict(),
            "method": None if recipe.summary == "none" else recipe.summary,
            "summarizer": _summarizer(recipe),
        },
    }
    for key in ("_name_or_path", "_commit_hash", "transformers_version"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(source, revision=recipe.base_revision)
    if not recipe.chat:
        tokenizer.chat_template = None  # what is served is prompted as it was trained
    tokenizer.save_pretrained(folder)
    (folder / PROMPT_FILE).write_text(json.dumps(ranking_prompt(recipe).to_dict(), indent=2) + "\n", encoding="utf-8")
    for name in travelling():
        shutil.copyfile(CORE / f"{name}.py", folder / f"{name}.py")


def travelling(*starts: str) -> list[str]:
    """The modules of core that the pipeline repo needs: what its two entry points import, and so on."""
    found: dict[str, None] = {}
    waiting = list(starts) or ["pipeline", "modeling"]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = None
            waiting += re.findall(r"^from \.(\w+) import", (CORE / f"{name}.py").read_text(encoding="utf-8"), re.M)
    return sorted(found)


def _summarizer(recipe: Recipe) -> str:
    """What writes summaries at inference: the engine that wrote the training ones, where the pipeline has it."""
    if recipe.summary == "none":
        return "none"
    engine = data.provenance(recipe.dataset).get("summaries", {})
    return "extractive" if engine.get("engine") == "extractive" else "base-model"


def sft_rows(rows: Dataset, texts: dict[str, str], prompt: RankingPrompt, negatives: int, seed: int) -> Dataset:
    """Rows of prompt and completion that stock TRL trains on, in the wording of `prompt`."""
    made = []
    for row, item_id, label in labelled(rows, negatives, seed):
        recent = [Item.parse(texts[one]) for one in row["history"]][len(row["history"]) - prompt.recent_items :]
        text = prompt.prefix(row.get("summary"), recent) + prompt.suffix(Item.parse(texts[item_id]))
        answer = prompt.yes if label else prompt.no
        made.append(
            {"prompt": text, "completion": f" {answer}", "user_id": row["user_id"], "item_id": item_id, "label": label}
        )
    return Dataset.from_list(made, features=data.SFT)


def write_dataset(folder: Path, recipe: Recipe, source: str, results: dict[str, object]) -> None:
    """Write the dataset with its summaries and, for each kind of them, the rows that stock TRL trains on."""
    texts = data.texts(source)
    tables = {
        "items": DatasetDict(train=data.read(source, "items", "train")),
        "histories": DatasetDict({split: data.read(source, "histories", split) for split in data.SPLITS}),
    }
    prompt = ranking_prompt(recipe)
    for method in ("recurrent", "hierarchical"):
        tables[method] = DatasetDict({split: data.read(source, method, split) for split in data.SPLITS})
        tables[f"{method}_sft"] = DatasetDict(
            {
                split: sft_rows(rows, texts, prompt, recipe.negatives, recipe.seed)
                for split, rows in tables[method].items()
            }
        )
    body = (
        "# Histories with LLM-TRSR summaries\n\n"
        "Configs: `items`, `histories`, `recurrent` and `hierarchical` (histories with summaries), and for both "
        "`_sft`, rows of prompt and completion.\n\n"
        '```python\nfrom datasets import load_dataset\n\nload_dataset("path/to/this/folder", "recurrent")\n```\n\n'
        f"## Results on the {results.get('split', 'test')} split\n\n{table(results)}\n"
    )
    header = {"task_categories": ["text-ranking"], "tags": ["recommendation", "llm-trsr"]}
    data.write(folder, tables, provenance=data.provenance(source), body=body, header=header)
