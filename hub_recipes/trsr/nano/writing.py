"""How the nano base learns to write, after it has learnt to rank: it copies, then answers `lessons` while rankings go on.

A model that only ever ranked cannot repeat a name it has just read; an adapter on it does not learn that either, all
weights together do. Random tokens that come again and again teach it in a few hundred steps.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import Trainer

from trsr.core.prompts import Encoder
from trsr.nano import curriculum
from trsr.nano.curriculum import Curriculum
from trsr.nano.lessons import Lessons

TEXT_WEIGHT = 1.0
LENGTH = 48  # tokens of a row to copy
GROWS = 40  # steps until the tokens that repeat may be one more


class Copies(Dataset):
    """Row i is always the same: a few random tokens, again and again. At first 3 of them, later up to 10.

    Args:
        steps: Length of the dataset in steps.
        size: Rows a step.
    """

    def __init__(self, encoder: Encoder, steps: int, size: int) -> None:
        self.steps, self.size = steps, size
        special = encoder.tokenizer.all_special_ids
        self._tokens = sorted(set(range(len(encoder.tokenizer))) - set(special))
        self._start = encoder.head_ids

    def __len__(self) -> int:
        return self.steps * self.size

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        rng = random.Random(f"copy-{row}")
        few = rng.choices(self._tokens, k=rng.randint(3, 3 + min(7, row // self.size // GROWS)))
        repeated = few * (LENGTH // len(few))
        return {"input_ids": self._start + repeated, "answered": len(repeated) - len(few)}


class Writing(Dataset):
    """Row i is always the same: a row of a ranking and one of `Lessons`.

    Args:
        steps: Length of the dataset in steps.
        size: Rows a step.
        negatives: Items not chosen, a ranking.
        end: Token that ends an answer.
        first_world: Rankings are of worlds from here.
    """

    def __init__(self, encoder: Encoder, steps: int, size: int, negatives: int, end: int, first_world: int) -> None:
        self._lessons = Lessons(encoder, steps, size, end)
        # All rows of the curriculum from the point on where its worlds are full.
        rows = round(steps * size / (1 - curriculum.FULL))
        self._first = rows - steps * size
        self._rankings = Curriculum(encoder, rows, negatives, first_world)

    def __len__(self) -> int:
        return len(self._lessons)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"write": self._lessons[row], "ranking": self._rankings[self._first + row]}


def collate(rows: Sequence[Mapping[str, Any]], pad: int) -> dict[str, Any]:
    """`ranking` as `curriculum.collate` gives it, and `write` as `pad_right` does."""
    return {
        "ranking": curriculum.collate([row["ranking"] for row in rows], pad),
        "write": pad_right([row["write"] for row in rows], pad),
    }


def pad_right(rows: Sequence[Mapping[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded ids and the tokens to predict, (rows, width) each; -100 where nothing is."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), -100)
    for place, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[place, :length] = torch.tensor(row["input_ids"])
        labels[place, length - row["answered"] : length] = ids[place, length - row["answered"] : length]
    return {"input_ids": ids, "labels": labels}


def loss_of_answers(model, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of the labels of `pad_right`; logits are computed where one is predicted, and nowhere else."""
    # Padding is on the right, where causal attention never looks: no mask is needed.
    hidden = model.model(batch["input_ids"], use_cache=False).last_hidden_state  # (rows, width, size)
    following = batch["labels"][:, 1:]
    wanted = following != -100
    return F.cross_entropy(model.lm_head(hidden[:, :-1][wanted]), following[wanted])


class WritingTrainer(Trainer):
    """Trainer with the loss on answers alone, of a model or of an adapter on it."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = loss_of_answers(model.get_base_model() if isinstance(model, PeftModel) else model, inputs)
        return (loss, {}) if return_outputs else loss


def forward(model, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `curriculum.forward`; the loss on text is that of the rankings, weighted as there, and that of what is written."""
    answers, sizes, text = curriculum.forward(model, batch["ranking"])
    return answers, sizes, curriculum.TEXT_WEIGHT * text + loss_of_answers(model, batch["write"])
