"""Rules for rows of prompt and completion: the answer is right, and about a user of the same split."""

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
    """Reads one config of prompts.

    Args:
        users: Split -> users of the histories.
        partial: Whether `users` are only some, so that others are not unknown.
        one_target: Whether a user has one target, so that any other item is a negative.
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
        """A label has one completion: the one that most rows of the first batch with that label have."""
        completions = batch.columns["completion"].to_pylist()
        given = [text.strip() for text in completions]
        for label in (1, 0):
            usual = Counter(text for text, one in zip(given, labels, strict=True) if one == label).most_common()
            free = [text for text, _ in usual if text and text not in self._answers.values()]
            if free and label not in self._answers:
                self._answers[label] = free[0]
        wrong = [
            place
            for place, (text, label) in enumerate(zip(given, labels, strict=True))
            if label in (0, 1) and text != self._answers.get(int(label))
        ]
        places = np.array(wrong, int)
        self.findings.mark("label-completion", batch, places, batch.columns["completion"].take(pa.array(places)))

    def _mark_users(self, batch: Batch, labels: np.ndarray, codes: np.ndarray) -> None:
        users = hashes(batch.columns["user_id"])
        mine = self.users[batch.split]
        here = isin_sorted(users, mine.hashes)
        elsewhere = np.zeros(len(users), bool)
        for split, others in self.users.items():
            if split != batch.split:
                elsewhere |= isin_sorted(users, others.hashes)
        self.findings.mark("user-in-two-splits", batch, elsewhere & ~here)
        if not self.partial:
            self.findings.mark("user-unknown", batch, ~here & ~elsewhere)
        targets = isin_sorted(pair(users, codes), mine.pairs)
        wrong = (labels == 1) & ~targets
        if self.one_target:
            wrong |= (labels == 0) & targets
        self.findings.mark(
            "label-target", batch, np.flatnonzero(here & wrong), batch.columns["item_id"].filter(pa.array(here & wrong))
        )
