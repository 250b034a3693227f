"""Assemble a release from a finished run: a folder for each repo, byte for byte as it will be pushed.

Makes no request to the Hub. `pin` writes the commits of earlier repos into later ones, as they become known.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import DatasetDict
from huggingface_hub import DatasetCard

from trsr.assets.paths import base_path, summarizer_path
from trsr.core.modeling import CATALOGUE, PROMPT_FILE, RELEASE_FILE, SUMMARIZER
from trsr.core.saving import copy_code, core_modules, save_tokenizer, write_config, write_json
from trsr.dataset import contract
from trsr.errors import ReleaseError
from trsr.hub import cards, decision, eval_results, spaces
from trsr.hub.copies import Copies
from trsr.hub.facts import Facts, gather
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.named_files import DOCUMENTS, TRAINING, copy_adapter, copy_base
from trsr.hub.repos import LOCAL, TYPES, Names
from trsr.recommender.examples import sft_rows
from trsr.records.adapters import write_adapter_config
from trsr.records.files import read_json, whole_folder, write_text
from trsr.records.provenance import Terms
from trsr.retrieval.carried import write_catalogue

# File types that a repo may hold. Code is listed by name: any other file that could run on a user's machine is refused.
SUFFIXES = {".gguf", ".json", ".jinja", ".md", ".parquet", ".safetensors", ".txt", ".yaml"}
SKILL = "SKILL.md"  # for agents, in the pipeline repo
PLAIN = {".gitattributes"}
NO_COPIES = Copies()


@dataclass(frozen=True, slots=True)
class Release:
    """An assembled release.

    Attributes:
        folder: Holds one folder a kind of repo, `names.own`.
        facts: What the cards show.
    """

    folder: Path
    names: Names
    facts: Facts


def assemble(
    inputs: ReleaseInputs,
    folder: Path,
    names: Names = LOCAL,
    *,
    terms: Terms | None = None,
    license: str | None = None,
    branch: str = "main",
    copies: Copies = NO_COPIES,
    restricted: bool = False,
    gated: bool = False,
) -> Release:
    """Write the release of a run to `folder`. Same inputs, same bytes.

    Args:
        names: Without them, repos name one another by relative paths, so that the folder can be moved as a whole.
        terms: Under which terms the data may be used; default, what its provenance says.
        license: Of the weights; default, the base's own.
        branch: Branch that the release will be pushed to; the code on its cards loads from there.
        copies: Forms for other engines; `names` names their repos.
        restricted: Whether its repos will be private or gated.
        gated: Whether data will lie behind a gate: then no user is shown outside it.

    Raises:
        ReleaseError, DataError: If something is missing.
    """
    check_replaceable(folder)
    if inputs.catalogue and not (terms or inputs.provenance.terms).share_text:
        raise ReleaseError(
            "The terms of the data do not allow to pass its texts on, and a catalogue holds them: leave out --retriever."
        )
    base = inputs.run.recipe.base
    if names.local and not Path(base_path(base)).is_dir():
        names = replace(names, base=base, own=names.own[1:])
    facts = gather(inputs, names, terms or inputs.provenance.terms, license, branch)
    facts = replace(facts, restricted=restricted, gated=gated)
    with whole_folder(folder) as draft:
        facts = _write_repos(draft, inputs, facts)
        written = copies.write(draft, inputs, names.pipeline.split("/")[-1])
        facts = replace(facts, copies=written)
    release = Release(folder, names, facts)
    pin(release, {})
    for kind in names.own:
        check_files(folder / kind)
    return release


def check_replaceable(folder: Path) -> None:
    """Raise ReleaseError unless `folder` is missing or empty, or holds a release and nothing else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    message = f"{folder} holds no release, so it is left as it is. Choose another --out, or empty it."
    try:
        config = json.loads((folder / "pipeline" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ReleaseError(message) from None
    if "trsr" not in config or not (folder / "adapter").is_dir():
        raise ReleaseError(message)
    expected = (*TYPES, RELEASE_FILE, ".DS_Store")
    if unexpected := sorted(path.name for path in folder.iterdir() if path.name not in expected):
        raise ReleaseError(
            f"{folder} holds a release and {', '.join(unexpected)}, which would be lost. Choose another --out, or move them."
        )


def _write_repos(draft: Path, inputs: ReleaseInputs, facts: Facts) -> Facts:
    """Fill `draft` with a folder for each repo, without cards and commits. Returns the facts, now complete."""
    names, terms, recipe, settings = facts.names, facts.terms, facts.recipe, inputs.settings
    source = base_path(recipe.base)
    if "base" in names.own:
        check_base(Path(source))
        copy_base(Path(source), draft / "base")
    copy_adapter(inputs.run.adapter, draft / "adapter")
    has_decision_files = write_pipeline(draft / "pipeline", inputs, names)
    summarises = settings["summarizer_adapter"] is not None
    if summarises:
        copy_adapter(Path(str(summarizer_path(recipe.base, recipe.summarizer))), draft / "adapter" / SUMMARIZER)
    if has_decision_files:
        for name in ("decision.json", "decision_template.jinja"):
            shutil.copyfile(draft / "pipeline" / name, draft / "adapter" / name)
    rows, header, printed = write_dataset(draft / "dataset", inputs, terms) if "dataset" in names.own else ({}, {}, [])
    for kind in names.own:
        if kind == "space" or kind in spaces.METRICS:
            files = spaces.space_files() if kind == "space" else spaces.metric_files(kind)
            for path, origin in files.items():
                (draft / kind / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(origin, draft / kind / path)
    # With it the pipeline finds its base and adapter in this folder before they are on the Hub.
    write_json(draft / RELEASE_FILE, {kind: names.repo(kind) for kind in names.own})
    kinds = [kind for kind in ("base", "adapter", "pipeline") if kind in names.own]
    return replace(
        facts,
        files={kind: _file_names(draft / kind) for kind in kinds},
        has_decision_files=has_decision_files,
        summarises=summarises,
        rows=rows,
        header=header,
        printed=printed if facts.shows_users else [],
        max_length=getattr(inputs.base_config.get_text_config(), "max_position_embeddings", None),
    )


def _file_names(folder: Path) -> list[str]:
    """The files of a repo that a program loads, as paths in it."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.endswith(".md"))


def check_base(folder: Path) -> None:
    """Raise ReleaseError for a base whose vocabulary was made from texts that may not be shared."""
    record = folder / TRAINING
    if record.is_file() and read_json(record).get("share_text") is False:
        raise ReleaseError(
            f"The base {folder.name} was trained on texts that may not be passed on, and its tokens are made of them. "
            "Fine-tune another base for a release."
        )


def pin(release: Release, commits: Mapping[str, str], kind: str | None = None) -> None:
    """Write known commits into the files that refer to them, and render the cards.

    Args:
        commits: Kind of repo -> commit. A repo without one is referred to by its main branch.
        kind: The only folder to write to; None for all.
    """
    folder, names = release.folder, release.names
    all_commits = {"base": release.facts.base_revision, "dataset": release.facts.dataset_revision, **commits}
    for repo_kind in names.own if kind is None else [kind]:
        if repo_kind in ("adapter", "cross-encoder"):
            for path in (folder / repo_kind, folder / repo_kind / SUMMARIZER):
                if path.is_dir():
                    write_adapter_config(path, names.base, all_commits["base"])
        elif repo_kind == "pipeline":
            config = read_json(folder / repo_kind / "config.json")
            config["trsr"] |= {"base_revision": all_commits["base"], "adapter_revision": all_commits.get("adapter")}
            write_json(folder / repo_kind / "config.json", config)
        elif repo_kind == "space":
            space_settings = {
                "model": names.pipeline,
                "revision": all_commits.get("pipeline"),
                "license": release.facts.license_name or release.facts.license,
                "dataset": names.dataset,
                "dataset_revision": all_commits["dataset"],
                "dataset_license": release.facts.terms.license_name or release.facts.terms.license,
            }
            write_json(folder / repo_kind / "recommender.json", space_settings)
        if not names.local and repo_kind != "base":
            (folder / repo_kind / "README.md").write_text(
                cards.card(repo_kind, release.facts, all_commits), encoding="utf-8", newline="\n"
            )
        if not names.local and repo_kind in ("adapter", "pipeline"):
            facts = release.facts
            entries = eval_results.entries(facts.test, names.dataset, facts.recipe.config, all_commits["dataset"])
            eval_results.write(folder / repo_kind, entries)
        if not names.local and repo_kind == "pipeline":
            write_text(folder / repo_kind / SKILL, cards.skill(release.facts, all_commits))


def write_pipeline(folder: Path, inputs: ReleaseInputs, names: Names) -> bool:
    """Write a pipeline repo: code, config, tokenizer, decision files and a catalogue, if any; no weights of a language model.

    Returns:
        Whether decision files were written, see `decision.write`.
    """
    folder.mkdir(parents=True)
    recipe, encoder = inputs.run.recipe, inputs.encoder
    settings = {
        "base_model": names.base,
        "base_revision": recipe.base_revision,
        "adapter": names.adapter,
        "adapter_revision": None,
        **inputs.settings,
        **({CATALOGUE: True} if inputs.catalogue else {}),
    }
    write_config(folder, inputs.base_config.to_dict(), settings)
    if not recipe.chat:
        encoder.tokenizer.chat_template = None  # serve with the prompt format of training
    save_tokenizer(folder, encoder.tokenizer)
    (folder / PROMPT_FILE).write_text(
        json.dumps(encoder.prompt.to_dict(), indent=2) + "\n", encoding="utf-8", newline="\n"
    )
    copy_code(folder)
    if inputs.catalogue:
        write_catalogue(inputs.catalogue, folder / CATALOGUE)
    return decision.write(folder, encoder, settings["temperature"], settings["bias"])


def write_dataset(
    folder: Path, inputs: ReleaseInputs, terms: Terms
) -> tuple[dict[str, dict[str, int]], dict, list[str]]:
    """Write the dataset with its summaries and, for each summarization method, prompt-completion rows for TRL.

    Where the terms forbid to share texts, `items` holds ids alone, and the configs that quote items are left out.

    Returns:
        Rows of each config and split, what the card's header says of files and columns (`configs`, `dataset_info`), and
        the output of the code snippet on the card; none where texts may not be shared, for a card stands before the gate.
    """
    recipe = inputs.run.recipe
    tables = contract.shared_tables(inputs.tables, terms)
    if terms.share_text:
        for method in [config for config in contract.SUMMARY_CONFIGS if config in tables]:
            tables[f"{method}_sft"] = DatasetDict(
                {
                    split: sft_rows(rows, inputs.texts, inputs.encoder.prompt, recipe.negatives, recipe.seed)
                    for split, rows in tables[method].items()
                }
            )
    contract.write(
        folder,
        tables,
        provenance=inputs.provenance.with_terms(terms).values,
        body="# Histories with LLM-TRSR summaries",
        audit=inputs.audit,
    )
    rows = {config: {split: len(rows) for split, rows in splits.items()} for config, splits in tables.items()}
    header = DatasetCard((folder / "README.md").read_text(encoding="utf-8")).data.to_dict()
    example_config = next((method for method in contract.SUMMARY_CONFIGS if method in tables), "histories")
    example = tables[example_config]["test"][0]["history" if example_config == "histories" else "summary"]
    train = tables[example_config]["train"]
    users = [train[number] for number in range(min(3, len(train)))]
    front_matter = {name: header[name] for name in ("dataset_info", "configs")}
    printed = [str(example), *(f"{user['user_id']} {user['target']}" for user in users)]
    return rows, front_matter, printed if terms.share_text else []


def check_files(folder: Path) -> None:
    """Raise ReleaseError for a file that could run on a user's machine, or whose type no repo of ours holds."""
    code = {f"{name}.py" for name in core_modules()} | set(spaces.space_files())
    for metric in spaces.METRICS:
        code |= set(spaces.metric_files(metric))
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_allowed = name in code | PLAIN or path.suffix in SUFFIXES or DOCUMENTS.fullmatch(name)
        if path.is_symlink() or (path.is_file() and not is_allowed):
            raise ReleaseError(
                f"{name} in {folder} may not be published: a release holds safetensors, Parquet, JSON, templates, "
                "cards and its own code. Remove it, or convert it."
            )
