"""Rules for the configs of summaries: something was written, it can come from this history, it does not name the answer."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trsr.dataset.check.batches import Batch
from trsr.dataset.check.catalogue import Catalogue
from trsr.dataset.check.findings import Findings, show
from trsr.dataset.check.histories import Histories
from trsr.dataset.check.lengths import Lengths, blank, words
from trsr.dataset.check.texts import mark_texts
from trsr.records.provenance import SummaryProvenance

# Words. Our prompts ask for two or three sentences.
LONGEST = 300
# Share of the summaries that another than the model wrote.
TOO_MANY = 0.05


def note_provenance(findings: Findings, summaries: SummaryProvenance) -> None:
    """Note what the provenance says of summaries that are missing, or that the model did not write."""
    if summaries.limit:
        findings.note("summary-partial", shown=f"the first {show(summaries.limit)}")
    if not (fallen_back := summaries.fallen_back_by_method):
        return
    reasons = ", ".join(f"{show(why)} {count}" for why, count in summaries.fallen_back.items())
    for method, count in fallen_back.items():
        if total := summaries.calls.get(method, 0):
            if count > TOO_MANY * total:
                findings.severity_overrides["summary-fallen-back"] = "warning"
            findings.note("summary-fallen-back", method, shown=f"{count:,} of {total:,} ({reasons})")


def mark_summaries(
    findings: Findings,
    batch: Batch,
    rows: Histories,
    lengths: Lengths,
    *,
    block_size: int | None = None,
    max_blocks: int | None = None,
) -> None:
    """Apply the rules to a batch.

    Args:
        block_size: Items a block, where the provenance says it.
        max_blocks: Newest blocks kept, where the provenance says it.
    """
    summaries, blocks = batch.columns["summary"], batch.columns["block_summaries"]
    counts = blocks.value_lengths().to_numpy()
    long = words(summaries)
    lengths.add(f"{batch.config} summary, words", long)
    lengths.add(f"{batch.config} block summaries", counts)
    findings.mark("summary-empty", batch, blank(summaries))
    findings.mark("summary-long", batch, long > LONGEST)
    mark_texts(findings, batch, "summary")
    findings.mark("title-in-summary", batch, *_titles(summaries, rows))

    flat = blocks.flatten()
    of = np.repeat(np.arange(len(counts)), counts)
    findings.mark("blocks-empty", batch, np.concatenate([np.flatnonzero(counts == 0), of[blank(flat)]]))
    items = rows.history.lengths
    most = -(-items // block_size) if block_size else items
    if max_blocks:
        most = np.minimum(most, max_blocks)
    wrong = (counts != most) if block_size and max_blocks else (counts > most)
    findings.mark("blocks-count", batch, wrong & (counts > 0) & (items > 0))
    if batch.config == "recurrent":
        some = np.flatnonzero(counts)
        last = flat.take(pa.array(counts.cumsum()[some] - 1))
        differs = pc.not_equal(last, summaries.take(pa.array(some))).to_numpy(zero_copy_only=False)
        findings.mark("summary-not-last", batch, some[differs])


def _titles(summaries: pa.Array, rows: Histories) -> tuple[np.ndarray, pa.Array]:
    """Rows whose summary names the target, and the title.

    Titles of one word are words like any other. A title that an item of the history has too may be named.
    """
    catalogue, codes = rows.catalogue, rows.target.codes
    found: list[tuple[int, str]] = []
    if catalogue.titles is None:
        return np.zeros(0, int), None
    titles = catalogue.titles.take(pa.array(np.maximum(codes, 0))).to_pylist()
    starts = rows.history.lengths.cumsum() - rows.history.lengths
    for place, (title, summary) in enumerate(zip(titles, summaries.to_pylist(), strict=True)):
        if codes[place] < 0 or " " not in title.strip() or title not in summary:
            continue
        read = rows.history.codes[starts[place] : starts[place] + rows.history.lengths[place]]
        if re.search(rf"(?<!\w){re.escape(title)}(?!\w)", summary) and not _named(title, read, catalogue):
            found.append((place, title))
    return np.array([place for place, _ in found], int), pa.array([title for _, title in found], pa.string())


def _named(title: str, codes: np.ndarray, catalogue: Catalogue) -> bool:
    """Whether an item of these codes has `title` within its own."""
    assert catalogue.titles is not None
    return any(title in other for other in catalogue.titles.take(pa.array(codes[codes >= 0])).to_pylist())
