"""Train a small Llama from scratch to rank: byte-level BPE, three losses, and runs that can be resumed.

Knows nothing of where prompts come from. Candidates come in groups, one chosen item per group, which is the first.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from trsr.errors import UsageError
from trsr.progress import show_training, without_bars
from trsr.recommender.train import last_checkpoint
from trsr.recommender.training_cost import SPENT, CostCallback
from trsr.records.files import bind, read_json, whole_folder, write_text

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
CONTEXT = 2048
RECORD = "training.json"  # of a model, and of the run that wrote it

# Model and batch -> logits (candidates, vocabulary) at the answers, candidates of each group, loss on the text.
Forward = Callable[[LlamaForCausalLM, dict[str, Any]], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def train_tokenizer(texts: Iterable[str], vocab_size: int, splits: Sequence[Any]) -> PreTrainedTokenizerFast:
    """Byte-level BPE that starts every text with BOS.

    BOS acts as an attention sink: without it nothing is learnt.

    Args:
        splits: Pre-tokenizers, the last one to bytes; no token crosses a split.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(splits))
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=CONTEXT
    )


def claim_folders(out: Path, work: Path, **made_from: Any) -> None:
    """Claim the folders of a run: `work` for its checkpoints, `out` for its model.

    Args:
        made_from: All settings and inputs that determine the model.

    Raises:
        UsageError: If `work` belongs to another run, or `out` holds anything but a model of `trsr pretrain`.
    """
    if out.exists() and any(out.iterdir()) and not (out / RECORD).is_file():
        raise UsageError(f"{out} is not empty and holds no model of trsr pretrain. Choose another --out.")
    bind(work, made_from)


def finished(out: Path, work: Path) -> dict[str, Any] | None:
    """The record of the model in `out` if the run in `work` has written it, else None."""
    work_record, written = work / RECORD, out / RECORD
    if not (work_record.is_file() and written.is_file()):
        return None
    record = read_json(written)
    return record if record == read_json(work_record) else None


def describe(draft: Path, work: Path, record: Mapping[str, Any], card: str) -> None:
    """Write record and card of a model into its draft folder, and the record into `work`, where `finished` finds it."""
    text = json.dumps(record, indent=2) + "\n"
    (draft / "README.md").write_text(card, encoding="utf-8", newline="\n")
    (draft / RECORD).write_text(text, encoding="utf-8", newline="\n")
    write_text(work / RECORD, text)


def load_or_train_tokenizer(work: Path, make: Callable[[], PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    """Load the tokenizer of the run in `work`; the first call makes and saves it."""
    folder = work / "tokenizer"
    if not folder.is_dir():
        with whole_folder(folder) as draft:
            make().save_pretrained(draft)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def llama(tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int, heads: int) -> LlamaForCausalLM:
    """A Llama with tied embeddings and random weights."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=int(hidden * 8 / 3) // 32 * 32,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def ranking_losses(answers: torch.Tensor, sizes: torch.Tensor, yes: int, no: int) -> dict[str, torch.Tensor]:
    """Losses of groups of candidates, the chosen one first in each, and how often it ranks first.

    Args:
        answers: Logits (candidates, vocabulary).
        sizes: Candidates of each group (groups,), at least 2.

    Returns:
        `listwise`: cross-entropy of the softmax over a group's log-odds. `answer`: cross-entropy of yes or no, where
        yes and no have the same weight, as in fine-tuning. `first`: share of groups whose chosen candidate ranks first.
    """
    groups = torch.arange(len(sizes)).repeat_interleave(sizes)
    chosen = sizes.cumsum(0) - sizes
    is_negative = torch.ones(len(answers)).index_fill(0, chosen, 0.0)
    odds = answers[:, yes] - answers[:, no]  # (candidates,)
    # The largest log-odds of a group are subtracted before exp, so that none overflows.
    peak = torch.zeros(len(sizes)).scatter_reduce(0, groups, odds.detach(), "amax", include_self=False)
    total = torch.zeros(len(sizes)).index_add(0, groups, (odds - peak[groups]).exp())
    answer_losses = F.cross_entropy(answers, torch.where(is_negative > 0, no, yes), reduction="none")
    negative_losses = torch.zeros(len(sizes)).index_add(0, groups, answer_losses * is_negative) / (sizes - 1)
    negatives_ahead = torch.zeros(len(sizes)).index_add(0, groups, (odds >= odds[chosen][groups]) * is_negative)
    return {
        "listwise": (total.log() + peak - odds[chosen]).mean(),
        "answer": (answer_losses[chosen].mean() + negative_losses.mean()) / 2,
        "first": (negatives_ahead == 0).float().mean(),
    }


class RankingTrainer(Trainer):
    """Trainer for the ranking losses and the language-model loss on the text; logs each of them."""

    def __init__(self, *args, forward: Forward, yes: int, no: int, text_weight: float, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.forward = forward
        self.yes, self.no, self.text_weight = yes, no, text_weight
        self._parts: list[dict[str, float]] = []

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        answers, sizes, text = self.forward(model, inputs)
        parts = ranking_losses(answers, sizes, self.yes, self.no) | {"text": text}
        self._parts.append({name: value.item() for name, value in parts.items()})
        loss = parts["listwise"] + parts["answer"] + self.text_weight * text
        return (loss, {}) if return_outputs else loss

    def log(self, logs, *args, **kwargs):
        if self._parts and "loss" in logs:
            logs |= {
                name: round(sum(step_losses[name] for step_losses in self._parts) / len(self._parts), 4)
                for name in self._parts[0]
            }
            self._parts.clear()
        super().log(logs, *args, **kwargs)


def arguments(
    work: Path,
    *,
    steps: int,
    rows: int,
    learning_rate: float,
    seed: int,
    save_steps: int = 250,
) -> TrainingArguments:
    """Arguments of a Trainer for a small model on CPU, with rows in their given order.

    Args:
        work: Folder for checkpoints.
        rows: Rows per step.
        learning_rate: Peak; after the warm-up it follows a cosine.
    """
    return TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=rows,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.05},
        warmup_steps=min(200, steps // 10),
        adam_beta2=0.98,
        weight_decay=0.05,
        max_grad_norm=1.0,
        logging_steps=min(50, max(1, steps // 5)),
        save_steps=save_steps,
        save_total_limit=2,
        seed=seed,
        use_cpu=True,
        report_to="none",
        remove_unused_columns=False,
        # A row is determined by its number, and rows may get harder with it.
        train_sampling_strategy="sequential",
    )


def fit(trainer: Trainer) -> dict[str, Any]:
    """Train; a killed run goes on from its newest complete checkpoint. Returns settings and costs for `training.json`."""
    work = Path(str(trainer.args.output_dir))
    last, _ = last_checkpoint(work)
    cost = CostCallback(work / SPENT, resumed=last is not None)
    trainer.add_callback(cost)
    show_training(trainer, "pretrain")
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    return {
        "learning_rate": trainer.args.learning_rate,
        "seed": trainer.args.seed,
        **{name: round(seconds) for name, seconds in cost.total().items()},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "last_log": next((entry for entry in reversed(trainer.state.log_history) if "loss" in entry), {}),
    }


def save(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    record: Mapping[str, Any],
    card: str,
    out: Path,
    work: Path,
) -> None:
    """Write weights in bf16 safetensors, config, tokenizer, `training.json` (`record`) and the card: all of it, or nothing."""
    config = model.config
    with whole_folder(out) as draft:
        # bf16 halves the file; the config still says float32, so a loaded model computes in full precision.
        with without_bars():
            model.to(torch.bfloat16).save_pretrained(draft)  # type: ignore[arg-type]
        config.dtype = "float32"
        config.architectures = ["LlamaForCausalLM"]
        config.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        describe(draft, work, record, card)
