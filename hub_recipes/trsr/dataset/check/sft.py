"""Rules for rows of prompt and completion: label and completion agree, and the user is in the same split of histories."""

from collections import Counter

import numpy as np
import pyarrow as pa

from trsr.dataset.check.batches import Batch
from trsr.dataset.check.catalogue import Catalogue, hashes
from trsr.dataset.check.findings import Findings
from trsr.dataset.check.hashes import isin_sorted, pair
from trsr.dataset.check.lengths import Lengths, blank, words
from trsr.dataset.check.texts import mark_ids, mark_prompts
from trsr.dataset.check.users import Users


class Prompted:
    """Checks one config of prompts and completions.

    Args:
        users: Split -> users of the histories.
        partial: Whether only a part of the users was read, so that other users are not reported as unknown.
        one_target: Whether a user has a single target, so that all other items are negatives.
    """

    def __init__(
        self,
        findings: Findings,
        lengths: Lengths,
        catalogue: Catalogue,
        users: dict[str, Users],
        *,
        partial: bool,
        one_target: bool,
    ) -> None:
        self.findings = findings
        self.lengths = lengths
        self.catalogue = catalogue
        self.users = users
        self.partial = partial
        self.one_target = one_target
        self._answers: dict[int, str] = {}

    def mark(self, batch: Batch) -> None:
        """Apply the rules to a batch."""
        prompts, items = batch.columns["prompt"], batch.columns["item_id"]
        self.lengths.add(f"{batch.config} prompt, words", words(prompts))
        self.findings.mark("prompt-empty", batch, blank(prompts))
        mark_ids(self.findings, batch, "item-id-in-prompt", items, prompts)
        mark_prompts(self.findings, batch, "prompt")
        codes = self.catalogue.codes(items)
        if len(self.catalogue.ids):
            self.findings.mark("item-unknown", batch, np.flatnonzero(codes < 0), items.filter(pa.array(codes < 0)))
        labels = batch.columns["label"].to_numpy()
        self.findings.mark("label-value", batch, ~np.isin(labels, (0, 1)))
        self._mark_answers(batch, labels)
        if batch.split in self.users:
            self._mark_users(batch, labels, codes)

    def _mark_answers(self, batch: Batch, labels: np.ndarray) -> None:
        """Mark completions that do not match their label. Each label has one: that of most rows of the first batch with it."""
        completions = batch.columns["completion"].to_pylist()
        answers = [text.strip() for text in completions]
        for label in (1, 0):
            usual = Counter(
                text for text, row_label in zip(answers, labels, strict=True) if row_label == label
            ).most_common()
            unused = [text for text, _ in usual if text and text not in self._answers.values()]
            if unused and label not in self._answers:
                self._answers[label] = unused[0]
        wrong = [
            row
            for row, (text, label) in enumerate(zip(answers, labels, strict=True))
            if label in (0, 1) and text != self._answers.get(int(label))
        ]
        rows = np.array(wrong, int)
        self.findings.mark("label-completion", batch, rows, batch.columns["completion"].take(pa.array(rows)))

    def _mark_users(self, batch: Batch, labels: np.ndarray, codes: np.ndarray) -> None:
        users = hashes(batch.columns["user_id"])
        own = self.users[batch.split]
        in_split = isin_sorted(users, own.hashes)
        in_other_split = np.zeros(len(users), bool)
        for split, other in self.users.items():
            if split != batch.split:
                in_other_split |= isin_sorted(users, other.hashes)
        self.findings.mark("user-in-two-splits", batch, in_other_split & ~in_split)
        if not self.partial:
            self.findings.mark("user-unknown", batch, ~in_split & ~in_other_split)
        targets = isin_sorted(pair(users, codes), own.pairs)
        wrong = (labels == 1) & ~targets
        if self.one_target:
            wrong |= (labels == 0) & targets
        self.findings.mark(
            "label-target",
            batch,
            np.flatnonzero(in_split & wrong),
            batch.columns["item_id"].filter(pa.array(in_split & wrong)),
        )
