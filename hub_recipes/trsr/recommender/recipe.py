"""A training recipe: frozen records read from YAML, with command-line overrides; every mistake is reported at once."""

import contextlib
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from trsr.errors import RecipeError
from trsr.recommender.system_names import why_taken

SUMMARIES = ("recurrent", "hierarchical", "none")
FORMS = ("flat", "shared-prefix")
KEEP = ("last", "best")
PLATEAU = "reduce_lr_on_plateau"
# Those of transformers that need no more settings.
SCHEDULERS = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"),
    PLATEAU,
)
_NULL = ("", "~", "null")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
LARGEST_SEED = 2**32 - 1  # that numpy takes


@dataclass(frozen=True, slots=True)
class Lora:
    """LoRA, as in the paper: rank 8 on the attention projections. See peft.LoraConfig."""

    r: int = 8
    alpha: int = 16
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True, slots=True)
class Optim:
    """Optimisation, as in the paper.

    `batch_size` counts rows a device and forward, `accumulation` forwards a step. In the form flat a row is a candidate, in
    the form shared-prefix a user with all 1 + negatives of them. `bf16` trains in bf16 where the device has arithmetic for it:
    GPUs, and processors with AVX512-BF16 or AMX; elsewhere, and where it is false, in fp32. A run's record says which it was.
    An evaluation computes in the precision of the weights of the base, whatever this says.
    """

    learning_rate: float = 1e-4
    epochs: float = 5.0
    max_steps: int = 0  # 0: as many as the epochs give
    batch_size: int = 8
    accumulation: int = 8
    weight_decay: float = 5e-4
    beta1: float = 0.9
    beta2: float = 0.95
    warmup_ratio: float = 0.03  # of all steps
    scheduler: str = "cosine"  # one of SCHEDULERS
    bf16: bool = True
    gradient_checkpointing: bool = True
    save_steps: int = 200  # steps between checkpoints; a killed run goes on from the last one
    device: str = "auto"  # auto | cpu


@dataclass(frozen=True, slots=True)
class Watch:
    """Loss and ranking on validation users while a run is trained."""

    steps: int = 0  # training steps between two validations; 0: no validation
    users: int = 200  # the first ones; 0: all
    keep: str = "last"  # last | best: the adapter with the best Recall@3 in a validation, as in the paper
    report_to: str = "none"  # none | tensorboard | trackio, or another value of report_to in transformers


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of one fine-tuning run.

    Attributes:
        base: Hub id or folder of a causal language model; `nano` is the one in the package.
        dataset: Hub id or folder of a dataset that follows the data contract; `sample` is the one in the package.
        summary: Which summaries the prompt shows.
        summarizer: Folder of the adapter on `base` that wrote the dataset's summaries (`trsr train-summarizer`). The
            recommender then summarises with it, and its release holds it.
        recent_items: Newest items shown beside the summary.
        targets: Positives of a user in training: the newest item and, going back, the items that follow a full block, each
            with the summary up to then. More than 1 needs recurrent summaries, or none.
        negatives: Training candidates that were not chosen, per positive.
        form: A training row is a candidate (flat) or a user, whose candidates share one prefix (shared-prefix). Same prompts
            and loss; with gradient checkpointing, models with recurrent layers run every prompt whole even so.
        listwise: 0: the paper's cross-entropy of yes and no; 1: softmax over a user's candidates of their log-odds of yes;
            their mix between. Above 0 only in the form shared-prefix.
        max_tokens: Longest prompt; longer ones are shortened by rule. 0: the model's context.
        chat: Use the tokenizer's chat template where it has one.
    """

    base: str
    dataset: str
    name: str = "run"
    base_revision: str | None = None
    dataset_revision: str | None = None
    summary: str = "recurrent"
    summarizer: str | None = None
    recent_items: int = 5
    targets: int = 1
    negatives: int = 1
    form: str = "flat"
    listwise: float = 0.0
    max_tokens: int = 2048
    chat: bool = True
    yes: str = "yes"
    no: str = "no"
    train_users: int = 0  # 0: all
    seed: int = 0
    lora: Lora = field(default_factory=Lora)
    optim: Optim = field(default_factory=Optim)
    watch: Watch = field(default_factory=Watch)

    @property
    def config(self) -> str:
        """The config of the dataset that training and evaluation read rows from."""
        return "histories" if self.summary == "none" else self.summary

    def __post_init__(self) -> None:
        problems = []
        if taken := why_taken(self.name):
            problems.append(f"name: got {self.name!r}, which is {taken}, expected another")
        if self.summary not in SUMMARIES:
            problems.append(f"summary: got {self.summary!r}, expected one of {', '.join(SUMMARIES)}")
        if self.summarizer and self.summary == "none":
            problems.append(f"summarizer: got {self.summarizer!r} with summary none, expected no summarizer")
        if self.form not in FORMS:
            problems.append(f"form: got {self.form!r}, expected one of {', '.join(FORMS)}")
        if self.targets > 1 and self.summary == "hierarchical":
            problems.append(f"targets: got {self.targets}, expected 1: earlier blocks are not merged in the dataset")
        if self.watch.keep not in KEEP:
            problems.append(f"watch.keep: got {self.watch.keep!r}, expected one of {', '.join(KEEP)}")
        elif self.watch.keep == "best" and not self.watch.steps:
            problems.append("watch.keep: got 'best' with watch.steps 0, expected steps between two validations")
        if self.optim.scheduler not in SCHEDULERS:
            problems.append(f"optim.scheduler: got {self.optim.scheduler!r}, expected one of {', '.join(SCHEDULERS)}")
        elif self.optim.scheduler == PLATEAU and not self.watch.steps:
            problems.append(
                f"optim.scheduler: got {PLATEAU!r} with watch.steps 0, expected steps between two validations"
            )
        if not 0 <= self.seed <= LARGEST_SEED:
            problems.append(f"seed: got {self.seed}, expected 0 to {LARGEST_SEED}")
        if not 0 <= self.listwise <= 1:
            problems.append(f"listwise: got {self.listwise}, expected 0 to 1")
        elif self.listwise and self.form == "flat":
            problems.append(f"listwise: got {self.listwise} in the form flat, expected 0, or form: shared-prefix")
        for key, value, least in (
            ("recent_items", self.recent_items, 0),
            ("targets", self.targets, 1),
            ("negatives", self.negatives, 1),
            ("max_tokens", self.max_tokens, 0),
            ("train_users", self.train_users, 0),
            ("lora.r", self.lora.r, 1),
            ("lora.alpha", self.lora.alpha, 1),
            ("optim.batch_size", self.optim.batch_size, 1),
            ("optim.accumulation", self.optim.accumulation, 1),
            ("optim.max_steps", self.optim.max_steps, 0),
            ("optim.save_steps", self.optim.save_steps, 1),
            ("watch.steps", self.watch.steps, 0),
            ("watch.users", self.watch.users, 0),
        ):
            if value < least:
                problems.append(f"{key}: got {value}, expected at least {least}")
        for key, rate in (("optim.learning_rate", self.optim.learning_rate), ("optim.epochs", self.optim.epochs)):
            if not 0 < rate < math.inf:
                problems.append(f"{key}: got {rate}, expected a finite number above 0")
        for key, share in (
            ("lora.dropout", self.lora.dropout),
            ("optim.beta1", self.optim.beta1),
            ("optim.beta2", self.optim.beta2),
            ("optim.warmup_ratio", self.optim.warmup_ratio),
        ):
            if not 0 <= share < 1:
                problems.append(f"{key}: got {share}, expected 0 or more and less than 1")
        if not 0 <= self.optim.weight_decay < math.inf:
            problems.append(f"optim.weight_decay: got {self.optim.weight_decay}, expected a finite number, 0 or more")
        if not self.lora.target_modules:
            problems.append("lora.target_modules: got none, expected at least one")
        if self.optim.device not in ("auto", "cpu"):
            problems.append(f"optim.device: got {self.optim.device!r}, expected auto or cpu")
        if problems:
            raise RecipeError("\n".join(problems))

    def to_dict(self) -> dict[str, object]:
        plain = dataclasses.asdict(self)
        plain["lora"]["target_modules"] = list(plain["lora"]["target_modules"])
        return plain

    def settings(self) -> dict[str, object]:
        """What the seeds of one run have in common: all but the seed, and but where things lie and what the machine needs."""
        settings = dataclasses.asdict(self)
        for name in ("name", "dataset", "dataset_revision", "summarizer", "seed"):
            del settings[name]
        for name in ("device", "save_steps", "gradient_checkpointing"):
            del settings["optim"][name]
        del settings["watch"]["report_to"]
        return settings | {"base": Path(self.base).name, "lora": self.to_dict()["lora"]}


def names() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a recipe file, in UTF-8 or UTF-16, with every value as text. Raises RecipeError if it is not readable."""
    try:
        values = _parse(path.read_bytes())  # bytes, because YAML then detects the encoding
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{path.name} is not readable YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path.name} must hold `key: value` lines, got {type(values).__name__}.")
    return values


def _parse(text: str | bytes) -> Any:
    """YAML with every value as text: YAML 1.1 would read the revision 0012345 as 5349, and the answer no as False."""
    return yaml.load(text, Loader=yaml.BaseLoader)


def load_recipe(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path, then apply `key=value` and `section.key=value` overrides.

    Raises:
        RecipeError: Unknown recipe, unreadable YAML, or the list of all wrong keys and values.
    """
    if source.endswith((".yaml", ".yml")):
        path = Path(source)
        if not path.is_file():
            raise RecipeError(f"No recipe file at {source!r}. See: trsr recipes")
    else:
        if source not in names():
            close = difflib.get_close_matches(source, names(), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise RecipeError(f"Unknown recipe {source!r}.{hint} See: trsr recipes")
        path = Path(str(_folder() / f"{source}.yaml"))
    values = read_yaml(path)
    problems: list[str] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            problems.append(f"{override!r}: write an override as key=value or section.key=value")
            continue
        *sections, last = key.split(".")
        section_values = values
        for section in sections:
            section_values = section_values.setdefault(section, {})
            if not isinstance(section_values, dict):
                problems.append(f"{key}: {section} is not a section")
                break
        else:
            try:
                section_values[last] = _parse(text)
            except (yaml.YAMLError, ValueError):
                problems.append(f"{key}: {text!r} is not readable YAML")
    values.setdefault("name", path.stem)
    recipe = _build(Recipe, values, "", problems)
    if problems:
        raise RecipeError(
            f"{len(problems)} problem(s) in recipe {path.name}:\n" + "\n".join(f"  {p}" for p in problems)
        )
    assert isinstance(recipe, Recipe)
    return recipe


def _build(record: type, values: Mapping, path: str, problems: list[str]):
    """Build a record from plain values. Mistakes are appended to `problems`, each with its key; returns None if there are any."""
    fields = {entry.name: entry for entry in dataclasses.fields(record)}
    hints = typing.get_type_hints(record)
    before = len(problems)
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f", did you mean {close[0]!r}?" if close else f", expected one of {', '.join(fields)}"
            problems.append(f"{path}{key}: unknown key{hint}")
        elif dataclasses.is_dataclass(hints[key]):
            if isinstance(value, Mapping):
                arguments[key] = _build(hints[key], value, f"{path}{key}.", problems)
            else:
                problems.append(f"{path}{key}: got {value!r}, expected a section")
        else:
            try:
                arguments[key] = _cast(value, hints[key])
            except TypeError as error:
                problems.append(f"{path}{key}: {error}")
    for key, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and key not in values:
            problems.append(f"{path}{key}: missing")
        if required:
            arguments.setdefault(key, "")
    try:
        # Built in spite of problems, to report wrong values beside wrong keys; a section that failed has its default.
        built = record(**{key: value for key, value in arguments.items() if value is not None})
    except RecipeError as error:
        problems.extend(str(error).splitlines())
    return built if len(problems) == before else None


def _cast(value, hint):
    """`value`, which may be text, as the annotated type; an int may be given for a float."""
    is_null = value is None or (isinstance(value, str) and value.lower() in _NULL)
    if isinstance(hint, types.UnionType):
        return None if is_null else _cast(value, typing.get_args(hint)[0])
    if typing.get_origin(hint) is tuple:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return tuple(value)
        raise TypeError(f"got {value!r}, expected a list of words")
    if isinstance(value, str) and hint is not str:
        if hint is bool and value.lower() in _BOOLEANS:
            return _BOOLEANS[value.lower()]
        with contextlib.suppress(ValueError):
            if hint in (int, float) and "_" not in value:
                return hint(value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint and not is_null:
        return value
    raise TypeError(f"got {value!r}, expected {hint.__name__}")


def _folder():
    return files("trsr") / "recipes"


def build_recipe(values: Mapping) -> Recipe:
    """A recipe from plain values, such as a run's saved recipe. Raises RecipeError with all problems."""
    problems: list[str] = []
    recipe = _build(Recipe, values, "", problems)
    if problems:
        raise RecipeError("\n".join(problems))
    return recipe
