"""Check a dataset: read every config once, split by split, in batches.

Memory holds the reader's buffers of a row group, a batch, the ids and titles of all items, and 24 bytes a user; if users are in
several splits, also 8 bytes an interaction.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from datasets import Features, IterableDataset
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HTTPError
from pyarrow import ArrowException

from trsr.dataset import contract
from trsr.dataset.check.batches import ROWS, Batch, batches
from trsr.dataset.check.catalogue import Catalogue, read_catalogue
from trsr.dataset.check.findings import Finding, Findings, Severity, names, show
from trsr.dataset.check.histories import Histories, mark_histories
from trsr.dataset.check.language import disagrees, guess
from trsr.dataset.check.lengths import Lengths, Spread
from trsr.dataset.check.provenance import languages, read_provenance, severity_overrides
from trsr.dataset.check.sft import Prompted
from trsr.dataset.check.summaries import mark_summaries, note_provenance
from trsr.dataset.check.timestamps import Times
from trsr.dataset.check.users import Users, mark_differing, mark_users
from trsr.errors import DataError

TITLES_FOR_LANGUAGE = 2000


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check.

    Attributes:
        protocol: Description of how the rows were made; empty if the dataset does not say.
        rows: Config -> split -> number of rows read.
        spreads: What was measured -> its lengths.
    """

    source: str
    limit: int
    protocol: str
    findings: tuple[Finding, ...]
    rows: Mapping[str, Mapping[str, int]]
    spreads: Mapping[str, Spread]

    def count(self, severity: Severity) -> int:
        """Number of findings of a severity; a finding is one code in one split."""
        return sum(finding.severity == severity for finding in self.findings)

    def failed(self, *, strict: bool = False) -> bool:
        """Whether there are errors or, if strict, warnings."""
        return bool(self.count("error") or (strict and self.count("warning")))


def check(source: str, *, revision: str | None = None, limit: int = 0, examples: int = 3) -> Report:
    """Check a dataset against the data contract.

    Args:
        source: Folder, Hub id, or the name of a dataset in the package.
        limit: Rows to read of each split; 0 = all. All items are always read, because other configs refer to them.
        examples: Number of examples to keep for each finding.

    Raises:
        DataError: If there is no such dataset, or it cannot be read.
    """
    if limit < 0 or examples < 0:
        raise DataError(f"--limit and --examples must not be negative, got {limit} and {examples}.")
    try:
        return _Check(source, revision, limit, examples).report()
    except (HTTPError, ArrowException, DatasetsError, UnicodeDecodeError) as error:
        raise DataError(f"Dataset {source!r} cannot be read: {error}") from error


class _Check:
    """A running check: its findings, and what the rules of later configs need from earlier ones."""

    def __init__(self, source: str, revision: str | None, limit: int, examples: int) -> None:
        self.source, self.revision, self.limit = source, revision, limit
        self.configs = contract.configs(source, revision)
        self.findings = Findings(examples)
        self.lengths = Lengths()
        self.rows: dict[str, dict[str, int]] = {}
        self.users: dict[str, Users] = {}
        self.provenance = read_provenance(source, revision, self.findings)
        self.findings.severity_overrides |= severity_overrides(self.provenance)

    def report(self) -> Report:
        for config in self.configs:
            if config not in contract.CONFIGS:
                self.findings.note("config-unknown", show(config))
        for config in ("items", "histories"):
            if config not in self.configs:
                self.findings.note("config-missing", config, shown=f"there are {names(self.configs)}")
        Times(self.findings).note_built(self.provenance.counts)
        note_provenance(self.findings, self.provenance.summaries)
        catalogue = self._catalogue()
        self._hint_language(catalogue)
        for config in contract.ROW_CONFIGS:
            if config in self.configs:
                self._check_histories(config, catalogue)
        for config in contract.SFT_CONFIGS:
            if config in self.configs:
                self._check_prompts(config, catalogue)
        protocol = self.provenance.protocol if self.provenance else ""
        findings = tuple(self.findings.sorted())
        return Report(self.source, self.limit, protocol, findings, self.rows, self.lengths.spreads())

    def _catalogue(self) -> Catalogue:
        needed = contract.items_features(contract.ITEM_COLUMNS)
        read: Iterator[Batch] = iter(())
        for split, rows in self._splits("items", contract.SPLITS[:1]):
            if not self.provenance.terms.share_text and "text" not in (rows.features or {}):
                self.findings.note("text-withheld", "items", split)
                needed = contract.items_features(contract.ITEM_COLUMNS[:1])
            read = self._batches(rows, "items", split, needed, limit=0)
        return read_catalogue(read, self.findings, self.lengths)

    def _check_histories(self, config: str, catalogue: Catalogue) -> None:
        is_first = not self.users
        times = Times(self.findings)
        within_users = self.provenance.users_in_several_splits and not self.provenance.by_impressions
        sizes = self.provenance.summaries.known_block_sizes()
        needed = contract.HISTORIES if config == "histories" else contract.SUMMARIES
        for split, stream in self._splits(config, contract.SPLITS):
            for batch in self._batches(stream, config, split, needed, self.limit, ("timestamps", "also_met")):
                rows = Histories.of(batch, catalogue)
                if is_first:
                    self.lengths.add("history, items", rows.history.lengths)
                    self.lengths.add("negatives", rows.negatives.lengths)
                    mark_histories(self.findings, batch, rows)
                    mark_users(self.findings, batch, rows, self.users, within_users)
                    times.mark(batch)
                elif split in self.users:
                    mark_differing(self.findings, batch, rows, self.users[split])
                if config != "histories":
                    mark_summaries(self.findings, batch, rows, self.lengths, **sizes)
            count, expected = self._rows_read(config, split), self._rows_read("histories", split)
            if not is_first and 0 < count < expected:
                self.findings.note("row-differs", config, split, f"{count} rows, the histories have {expected}")
        tied = self.provenance.counts.get("targets_tied_in_time")
        if is_first and tied and not times.seen:
            self.findings.note("target-time-tied", config, shown=f"{tied:,} rows of all splits, when the log was read")

    def _check_prompts(self, config: str, catalogue: Catalogue) -> None:
        prompted = Prompted(
            self.findings,
            self.lengths,
            catalogue,
            self.users,
            partial=bool(self.limit),
            one_target=not self.provenance.by_impressions,
        )
        for split, stream in self._splits(config, contract.SPLITS):
            for batch in self._batches(stream, config, split, contract.SFT, self.limit):
                prompted.mark(batch)

    def _splits(self, config: str, expected: tuple[str, ...]) -> Iterator[tuple[str, IterableDataset]]:
        """The expected splits that the config has, in that order; others are noted."""
        if config not in self.configs:
            return
        streams = contract.stream(self.source, config, self.revision, ROWS)
        for split in [split for split in streams if split not in expected]:
            self.findings.note("split-unknown", config, show(split))
        for split in expected:
            if split in streams:
                yield split, streams[split]
            else:
                self.findings.note("split-missing", config, split, f"there are {names(streams)}")

    def _batches(
        self,
        stream: IterableDataset,
        config: str,
        split: str,
        needed: Features,
        limit: int,
        extra: tuple[str, ...] = (),
    ) -> Iterator[Batch]:
        counts = self.rows.setdefault(config, {})
        counts[split] = 0
        for batch in batches(stream, config, split, needed, self.findings, extra=extra, limit=limit):
            counts[split] = batch.stop
            yield batch

    def _rows_read(self, config: str, split: str) -> int:
        return self.rows.get(config, {}).get(split, 0)

    def _hint_language(self, catalogue: Catalogue) -> None:
        declared = languages(self.source, self.revision, self.provenance.terms)
        if not declared:
            self.findings.note("language-undeclared")
        elif catalogue.titles is not None:
            guessed = guess(catalogue.titles[:TITLES_FOR_LANGUAGE].to_pylist())
            if disagrees(declared, guessed):
                message = f"declared: {names(declared)}; looks like: {names(guessed)}"
                self.findings.note("language-other", "items", "train", message)
