"""What a dataset declares: its provenance, its language, and severities that follow from its protocol."""

from trsr.dataset import contract
from trsr.dataset.check.findings import Findings, Severity, show
from trsr.errors import DataError
from trsr.records.provenance import Provenance, Terms

# Severities under the protocol `impressions`, in which a row is a click, and splits are divided by time.
IMPRESSIONS: dict[str, Severity] = {
    "user-repeated": "note",
    "user-in-two-splits": "note",
    "target-in-history": "warning",
    "negative-in-history": "warning",
    "timestamps-split": "error",
}


def read_provenance(source: str, revision: str | None, findings: Findings) -> Provenance:
    """The provenance of a dataset; empty, with a finding, if it is missing or not valid."""
    try:
        provenance = contract.provenance(source, revision)
    except DataError as error:
        findings.note("provenance-unreadable", shown=show(error))
        return Provenance({}, source)
    if not provenance:
        findings.note("provenance-missing")
    return provenance


def severity_overrides(provenance: Provenance) -> dict[str, Severity]:
    """Severities that follow from the protocol."""
    if provenance.by_impressions:
        return IMPRESSIONS
    overrides: dict[str, Severity] = {}
    if provenance.counts.get("targets_in_own_history"):
        overrides["target-in-history"] = "warning"
    if provenance.protocol_record["split"] == "date":
        # An earlier row may hold older items than the later row's history, so a repeated item may be in that row alone.
        overrides["target-in-earlier-split"] = "warning"
    return overrides


def languages(source: str, revision: str | None, terms: Terms) -> list[str]:
    """Language codes that the terms declare or, if they do not, the card."""
    declared = terms.language or contract.header(source, revision).get("language") or []
    return [str(code) for code in ([declared] if isinstance(declared, str) else declared)]
