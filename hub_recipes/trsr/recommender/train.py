"""Fine-tune a base with LoRA on (summary, recent items, candidate) -> yes or no, through TRL's SFTTrainer.

The rows come from `examples`; the loss is on the answer token alone. A row is a candidate, or a user with all candidates
(`shared_prefix`).

In bf16 the base's weights, activations and matrix products are bf16; the adapter's weights, their gradients, AdamW's moments
and the loss are fp32, and so is the adapter that is written.
"""

import dataclasses
import functools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, load_peft_weights, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerState, set_seed
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTConfig, SFTTrainer

from trsr.assets.paths import base_path
from trsr.core.modeling import PROMPT_FILE
from trsr.core.prompts import Encoder
from trsr.dataset import contract
from trsr.errors import TrainError
from trsr.progress import loading, show_training
from trsr.recommender import shared_prefix
from trsr.recommender.examples import encode_rows, make_encoder, ranking_prompt, with_earlier_targets
from trsr.recommender.precision import computes_bf16
from trsr.recommender.recipe import PLATEAU, Recipe, build_recipe, read_yaml
from trsr.recommender.run import ADAPTER, RECIPE, RUN_FILE, TRAINED_ON, changed_configs, data_checksums, is_finished
from trsr.recommender.summary_origin import summarizer_kind
from trsr.recommender.training_cost import SPENT, CostCallback
from trsr.recommender.validation import RankingMixin, curves, draw, ranking
from trsr.records.adapters import write_adapter_config
from trsr.records.checksums import base_checksum
from trsr.records.files import one_writer, read_json, whole_folder, write_json, write_text
from trsr.records.provenance import SummaryProvenance
from trsr.records.versions import versions

CHECKPOINTS = "checkpoints"  # of a run that is not finished
PRECISION = "ACCELERATE_MIXED_PRECISION"  # what `accelerate launch` was told
# report_to -> package, where they differ.
_PACKAGES = {"azure_ml": "azureml-sdk", "comet_ml": "comet-ml"}
SPACING = 5  # items between two targets of a user, for datasets without summaries and thus without a block size


class AdapterTrainer(RankingMixin, SFTTrainer):
    """SFTTrainer that also ranks when it evaluates. It writes no card: ours is rendered from the records of the run."""

    def create_model_card(self, *args, **kwargs) -> None:
        pass


class UserTrainer(shared_prefix.SharedPrefixTrainer, AdapterTrainer):
    """AdapterTrainer for the form shared-prefix, where a row is a user."""


@one_writer
def train(recipe: Recipe, out: Path) -> dict[str, object]:
    """Run a recipe and write `out`: adapter/, recipe.yaml, run.json. A killed run goes on where it stopped.

    Supports several processes: `accelerate launch -m trsr train ...`.

    Raises:
        TrainError: If `out` holds another run that has begun, or this run is finished; or what it reports to is not installed.
        DataError: If the dataset violates the data contract.
    """
    _check_report_to(recipe.watch.report_to)
    cpu, half = trains_on(recipe)
    precision = "bf16" if half else "fp32"
    checkpoints = out / CHECKPOINTS
    arguments = training_arguments(recipe, checkpoints, half, cpu)
    # Of several processes, the first one writes the files of the run.
    with arguments.main_process_first(local=False):
        _claim(recipe, out)
    first = arguments.process_index == 0
    cost = CostCallback(checkpoints / SPENT, resumed=True)  # also of work that a kill has undone
    set_seed(recipe.seed)
    tokenizer, model = load_base(recipe, half)
    provenance = contract.provenance(recipe.dataset, recipe.dataset_revision)
    encoder = make_encoder(recipe, ranking_prompt(recipe, provenance), tokenizer, model.config)
    texts = contract.texts(recipe.dataset, recipe.dataset_revision)
    if recipe.summarizer:
        summarizer_kind(recipe, provenance.summaries)  # before the work, not at the release
    checksums = data_checksums(recipe.dataset, recipe.config, recipe.dataset_revision)
    commit = getattr(model.config, "_commit_hash", None) or recipe.base_revision
    base = {"checksum": base_checksum(recipe.base), "revision": commit}
    _check_resumed(recipe, out, checksums, base, precision)
    config = recipe.config
    rows = contract.read(recipe.dataset, config, "train", recipe.dataset_revision)
    if recipe.train_users:
        rows = rows.select(range(min(recipe.train_users, len(rows))))
    contract.check_ids(rows, texts, f"{recipe.dataset}, config {config}, split train")
    users = len(rows)
    if recipe.targets > 1:
        rows = with_earlier_targets(
            rows, recipe.targets, _block_size(recipe, provenance.summaries), recipe.summary, recipe.negatives
        )
    trained_on = {
        "base": base,
        "dataset_checksums": checksums,
        "precision": precision,
        "rows": list(zip(rows["user_id"], rows["target"], strict=True)),
    }
    examples, counts = encode_rows(rows, texts, encoder, recipe.negatives, recipe.seed, recipe.form)
    validation_options: dict[str, object] = {}
    if recipe.watch.steps:
        held_out = contract.read(recipe.dataset, config, "validation", recipe.dataset_revision)
        held_out = held_out.select(range(min(recipe.watch.users or len(held_out), len(held_out))))
        contract.check_ids(held_out, texts, f"{recipe.dataset}, config {config}, split validation")
        validation_options["eval_dataset"], _ = encode_rows(
            held_out, texts, encoder, recipe.negatives, recipe.seed, recipe.form
        )
        validation_options["ranking"] = ranking(held_out, texts, encoder, recipe.seed)
    if first:
        write_text(out / TRAINED_ON, json.dumps(trained_on) + "\n")
        write_text(out / RECIPE, yaml.safe_dump(recipe.to_dict(), sort_keys=False))

    trainer = _trainer(recipe, encoder)(
        model,
        arguments,
        train_dataset=examples,
        processing_class=tokenizer,
        **validation_options,
        peft_config=lora_config(recipe, model),
    )
    trainer.add_callback(cost)
    show_training(trainer, f"train {recipe.name}")
    # SFTTrainer drops rows whose answer it truncated: it must not truncate any here.
    assert len(trainer.train_dataset) == (len(rows) if recipe.form == "shared-prefix" else counts["rows"])
    training = learn(trainer, checkpoints)
    record = {
        "recipe": recipe.to_dict(),
        "seed": recipe.seed,
        "base_revision": commit,
        "base_checksum": base["checksum"],
        "dataset_checksums": checksums,
        "data": {"config": config, "users": users, "targets": len(rows), **counts},
        "plan": getattr(trainer, "plan", "rows"),
        **training,
        **{name: round(seconds, 1) for name, seconds in cost.total().items()},  # of the first of several processes
        "device": str(trainer.args.device),
        "precision": precision,
        "versions": versions(),
    }
    if first:
        prompt = json.dumps(encoder.prompt.to_dict(), indent=2, ensure_ascii=False) + "\n"
        save_adapter(trainer.model, recipe.base, recipe.base_revision, out / ADAPTER, {PROMPT_FILE: prompt})
        draw(training["curves"], out / "curves.png")
        write_json(out / RUN_FILE, record)
        if (checkpoints / "runs").is_dir():  # where tensorboard logs
            shutil.move(checkpoints / "runs", out / "logs")
        shutil.rmtree(checkpoints, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return record


def _trainer(recipe: Recipe, encoder: Encoder):
    """The trainer class for the form of the recipe, with the arguments that only this form needs."""
    if recipe.form == "flat":
        return AdapterTrainer
    return functools.partial(UserTrainer, yes_id=encoder.yes_id, no_id=encoder.no_id, listwise=recipe.listwise)


def lora_config(recipe: Recipe, model) -> LoraConfig:
    """The adapter that a recipe trains on a base in memory. Raises TrainError as `lora_targets` does."""
    return LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=lora_targets(model, recipe.lora.target_modules),
        task_type="CAUSAL_LM",
        revision=recipe.base_revision,
    )


def lora_targets(model, names: Sequence[str]) -> list[str] | str:
    """`names` as peft takes them; a pattern where the model has more than its language model.

    Vision and audio towers have modules of the same names: text never reaches them, and peft may not support them.

    Raises:
        TrainError: If a name matches no module.
    """
    decoder = model.get_decoder()
    module_names = [f".{module_name}" for module_name, _ in decoder.named_modules()]
    missing = [name for name in names if not any(module_name.endswith(f".{name}") for module_name in module_names)]
    if missing:
        linear = {module_name for module_name, module in decoder.named_modules() if isinstance(module, torch.nn.Linear)}
        linear_names = sorted({module_name.rsplit(".", 1)[-1] for module_name in linear})
        raise TrainError(
            f"lora.target_modules: this base has no module {', '.join(missing)}. "
            f"Its linear layers are {', '.join(linear_names) or 'none'}."
        )
    if model.config.get_text_config() is model.config:
        return list(names)
    root = next(module_name for module_name, module in model.named_modules() if module is decoder)
    return rf"{re.escape(root)}\.(.*\.)?({'|'.join(map(re.escape, names))})"


def learn(trainer: SFTTrainer, checkpoints: Path) -> dict[str, Any]:
    """Train, going on from the last checkpoint. Returns fields of the record; `loss` is the mean over the steps of this call, None if there were none."""
    with trainer.args.main_process_first(local=False):
        last, state = last_checkpoint(checkpoints)
        if last and state.best_global_step is not None and trainer.args.process_index == 0:
            # The run may have been moved since: the Trainer passes over a best checkpoint that it does not find.
            state.best_model_checkpoint = str(checkpoints / f"checkpoint-{state.best_global_step}")
            state.save_to_json(str(last / TRAINER_STATE_NAME))
    if last and state.global_step >= state.max_steps:
        # Resuming a finished run makes the Trainer run one extra step.
        best = state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
        set_peft_model_state_dict(trainer.model, load_peft_weights(str(best or last)))
        trainer.state = state
        return {
            "steps": state.global_step,
            "loss": None,
            "resumed_from_step": state.global_step,
            "curves": curves(state.log_history),
        }
    loss = trainer.train(resume_from_checkpoint=str(last) if last else None).training_loss
    if trainer.args.world_size > 1:
        # This loss is of one process: the Trainer averages only logged values over processes.
        loss = trainer.accelerator.gather(torch.tensor(loss, device=trainer.args.device)).mean().item()
    return {
        "steps": trainer.state.global_step,
        "loss": round(loss, 6),
        "resumed_from_step": state.global_step,
        "curves": curves(trainer.state.log_history),
    }


def last_checkpoint(folder: Path) -> tuple[Path | None, TrainerState]:
    """The newest complete checkpoint and its state, or None and a fresh state. Incomplete checkpoints are deleted."""
    newest: tuple[Path | None, TrainerState] = (None, TrainerState())
    for path in folder.glob("checkpoint-*"):
        try:
            # The Trainer writes its state last: if that can be read, the checkpoint is complete.
            state = TrainerState.load_from_json(str(path / TRAINER_STATE_NAME))
        except (OSError, ValueError):
            shutil.rmtree(path)
        else:
            newest = max(newest, (path, state), key=lambda entry: entry[1].global_step)
    return newest


def save_adapter(model, base: str, revision: str | None, folder: Path, files: Mapping[str, str]) -> None:
    """Write a plain PEFT adapter; same weights, same bytes.

    Args:
        files: More files of the folder: name -> text.
    """
    with whole_folder(folder) as draft:
        model.save_pretrained(draft)
        (draft / "README.md").unlink(missing_ok=True)
        write_adapter_config(draft, base, revision)
        for name, text in files.items():
            (draft / name).write_text(text, encoding="utf-8", newline="\n")


def training_arguments(recipe: Recipe, checkpoints: Path, half: bool, cpu: bool) -> SFTConfig:
    """What the Trainer is told: the recipe's `optim`, `watch` and `seed`, for rows that are encoded already.

    The precision is `half`'s, whatever `accelerate launch` was told.
    """
    with _precision("bf16" if half else "no"):
        return _arguments(recipe, checkpoints, half, cpu)


def _arguments(recipe: Recipe, checkpoints: Path, half: bool, cpu: bool) -> SFTConfig:
    optim, watch = recipe.optim, recipe.watch
    best = watch.keep == "best"
    checkpointing: dict[str, Any] = {_checkpointing(): optim.gradient_checkpointing}
    return SFTConfig(
        output_dir=str(checkpoints),
        learning_rate=optim.learning_rate,
        num_train_epochs=optim.epochs,
        max_steps=optim.max_steps or -1,
        per_device_train_batch_size=optim.batch_size,
        gradient_accumulation_steps=optim.accumulation,
        weight_decay=optim.weight_decay,
        adam_beta1=optim.beta1,
        adam_beta2=optim.beta2,
        warmup_steps=optim.warmup_ratio,
        lr_scheduler_type=optim.scheduler,
        bf16=half,
        **checkpointing,
        save_strategy="steps",
        save_steps=watch.steps if best else optim.save_steps,
        save_total_limit=2,
        logging_steps=20,
        report_to=watch.report_to,
        eval_strategy="steps" if watch.steps else "no",
        eval_steps=watch.steps or None,
        per_device_eval_batch_size=optim.batch_size,
        load_best_model_at_end=best,
        metric_for_best_model="eval_recall@3" if best else None,
        # Of the loss, or of Recall@3 where the best adapter is kept: torch takes any metric for a loss.
        lr_scheduler_kwargs={"mode": "max"} if best and optim.scheduler == PLATEAU else {},
        seed=recipe.seed,
        data_seed=recipe.seed,
        use_cpu=cpu,
        # TRL's default of 1,024 would truncate answers and drop the rows; our prompts are shortened already.
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


@contextmanager
def _precision(precision: str) -> Iterator[None]:
    """Let transformers and DeepSpeed read this precision from the environment, in place of that of `accelerate launch`."""
    before = os.environ.get(PRECISION)
    os.environ[PRECISION] = precision
    try:
        yield
    finally:
        del os.environ[PRECISION]
        if before is not None:
            os.environ[PRECISION] = before


def _checkpointing() -> str:
    """The name of the option for gradient checkpointing, which transformers 5.24 changed."""
    names = {entry.name for entry in dataclasses.fields(SFTConfig)}
    return "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"


def _claim(recipe: Recipe, out: Path) -> None:
    """Make sure that `out` is free, or holds an unfinished run: of this very recipe, or one without a checkpoint."""
    recipe_path = out / RECIPE
    if recipe_path.exists():
        if not _has_begun(out):
            return
        other, own = build_recipe(read_yaml(recipe_path)).to_dict(), recipe.to_dict()
        if changed := sorted(key for key in other | own if other.get(key) != own.get(key)):
            raise TrainError(
                f"{out} holds a run of another recipe (differs in {', '.join(changed)}). Choose another --out."
            )
        if is_finished(out):
            raise TrainError(f"{out} holds this run, complete. Choose another --out, or remove it.")
    elif out.exists() and any(out.iterdir()):
        raise TrainError(f"{out} is not empty and holds no run. Choose another --out.")
    out.mkdir(parents=True, exist_ok=True)


def _has_begun(out: Path) -> bool:
    """Whether a run is finished, or has a checkpoint or an adapter: a start that failed before that leaves nothing to keep."""
    return is_finished(out) or (out / ADAPTER).exists() or any((out / CHECKPOINTS).glob("checkpoint-*"))


def _check_report_to(name: str) -> None:
    """Raise TrainError if training cannot report to `name`, a value of transformers' `report_to`."""
    choices = ("none", "all", *INTEGRATION_TO_CALLBACK)
    if name not in choices:
        raise TrainError(f"watch.report_to: got {name!r}, expected one of {', '.join(choices)}.")
    by_package = name not in ("none", "all", "flyte", "kubeflow")  # transformers looks for no package of these
    if by_package and name not in get_available_reporting_integrations():
        raise TrainError(
            f"watch.report_to: {name} is not installed. Run: pip install {_PACKAGES.get(name, name)}, or leave it out."
        )


def _check_resumed(
    recipe: Recipe, out: Path, checksums: Mapping[str, str], base: Mapping[str, Any], precision: str
) -> None:
    """Raise TrainError if the dataset, the base or the precision has changed since the unfinished run in `out` began."""
    if not _has_begun(out):
        return
    path = out / TRAINED_ON
    record = read_json(path) if path.is_file() else {}
    if lacking := [name for name in ("base", "dataset_checksums", "precision") if name not in record]:
        raise TrainError(f"{path} lacks {', '.join(lacking)}. Train again with another --out.")
    if record["precision"] != precision:
        raise TrainError(
            f"This run began in {record['precision']}, and would go on in {precision} on this machine. Finish it where it began, or train again "
            "with another --out."
        )
    if record["base"] != base:
        raise TrainError(
            f"{recipe.base} has changed since this run began: it was {_shown(record['base'])} and is {_shown(base)}. Put that base back "
            "to finish the run, or train again with another --out."
        )
    data = record["dataset_checksums"]
    if changed := changed_configs(data, checksums):
        raise TrainError(
            f"{recipe.dataset} has changed since this run began: its config {changed[0]} was {data.get(changed[0])} and is "
            f"{checksums.get(changed[0])}. Put the dataset back to finish the run, or train again with another --out."
        )


def _shown(base: Mapping[str, Any]) -> str:
    """A base's checksum; of one on the Hub, id and commit."""
    return f"{base['checksum']}{' at ' + base['revision'] if base['revision'] else ''}"


def _block_size(recipe: Recipe, summaries: SummaryProvenance) -> int:
    """Items between two targets of a user: the block size of the summaries."""
    if recipe.summary == "none":
        return summaries.known_block_sizes().get("block_size", SPACING)
    return summaries.block_size


def trains_on(recipe: Recipe) -> tuple[bool, bool]:
    """Whether a recipe is trained on the processor, and whether in bf16, on this machine."""
    cpu = recipe.optim.device == "cpu" or not torch.accelerator.is_available()
    return cpu, recipe.optim.bf16 and computes_bf16(cpu)


def load_base(recipe: Recipe, half: bool) -> tuple[Any, Any]:
    """The tokenizer and the base of a recipe, with weights in bf16 if `half`, else in fp32."""
    source, revision = base_path(recipe.base), recipe.base_revision
    with loading(recipe.base):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        dtype = torch.bfloat16 if half else torch.float32
        return tokenizer, AutoModelForCausalLM.from_pretrained(source, revision=revision, dtype=dtype)
