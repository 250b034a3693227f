"""What a dataset says about itself: provenance, terms, protocol and language."""

from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any

from trsr.dataset import contract
from trsr.dataset.check.findings import Findings, Severity, show
from trsr.errors import DataError

# What the protocol `impressions` does that is an error in others: a row is a click, and time divides the splits.
IMPRESSIONS: dict[str, Severity] = {
    "user-repeated": "note",
    "user-in-two-splits": "note",
    "target-in-history": "warning",
    "negative-in-history": "warning",
    "timestamps-split": "error",
}
UNKNOWN = contract.Terms("dataset")


@dataclass(frozen=True, slots=True)
class Stated:
    """A provenance, or as much of it as can be read."""

    provenance: Any
    terms: contract.Terms

    def get(self, *keys: str) -> Any:
        """A value within the provenance, None if it is not there."""
        value = self.provenance
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def impressions(self) -> bool:
        """Whether the protocol is `impressions`."""
        return "impressions" in (
            self.get("protocol"),
            self.get("sampling", "protocol"),
            self.get("options", "protocol"),
        )

    def severity_overrides(self) -> dict[str, Severity]:
        """Severities that follow from the protocol."""
        if self.impressions:
            return IMPRESSIONS
        return {"target-in-history": "warning"} if self.get("counts", "targets_in_own_history") else {}

    def blocks(self) -> dict[str, int]:
        """`block_size` and `max_blocks` of the summaries, as far as they are stated."""
        sizes = {name: self.get("summaries", name) for name in ("block_size", "max_blocks")}
        return {name: size for name, size in sizes.items() if isinstance(size, int) and size > 0}


def read_stated(source: str, revision: str | None, findings: Findings) -> Stated:
    """Read the provenance of a dataset; note if it is missing or not as the contract has it."""
    try:
        made = contract.provenance(source, revision)
    except (JSONDecodeError, UnicodeDecodeError) as error:
        findings.note("provenance-unreadable", shown=show(error))
        return Stated({}, UNKNOWN)
    if not made:
        findings.note("provenance-missing")
        return Stated({}, UNKNOWN)
    try:
        return Stated(made, contract.Terms.of(made))
    except (DataError, AttributeError, TypeError, ValueError) as error:
        findings.note("provenance-unreadable", shown=show(error))
        return Stated(made, UNKNOWN)


def languages(source: str, revision: str | None, terms: contract.Terms) -> list[str]:
    """Language codes that the terms declare or, if they do not, the card."""
    declared = terms.language or contract.header(source, revision).get("language") or []
    return [str(code) for code in ([declared] if isinstance(declared, str) else declared)]
