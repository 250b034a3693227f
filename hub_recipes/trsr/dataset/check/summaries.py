"""Rules for the configs of summaries: they are not empty, fit the history, and do not name the target."""

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

# Words of a summary. Our prompts ask for two or three sentences.
LONGEST = 300
# Share of summaries that the extractive summarizer wrote in place of the model.
TOO_MANY = 0.05


def note_provenance(findings: Findings, summaries: SummaryProvenance) -> None:
    """Note summaries that are missing, or that the model did not write, according to the provenance."""
    if summaries.limit:
        findings.note("summary-partial", shown=f"the first {show(summaries.limit)}")
    if not (fallen_back := summaries.fallen_back_by_method):
        return
    reasons = ", ".join(f"{show(reason)} {count}" for reason, count in summaries.fallen_back.items())
    for method, count in fallen_back.items():
        if total := summaries.calls.get(method, 0):
            if count > TOO_MANY * total:
                findings.severity_overrides["summary-fallen-back"] = "warning"
            at_most = "at most " * summaries.continues_others  # some may have been replaced since
            findings.note("summary-fallen-back", method, shown=f"{at_most}{count:,} of {total:,} ({reasons})")


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
        block_size: Items per block, if the provenance has it.
        max_blocks: Number of newest blocks that were kept, if the provenance has it.
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
    block_rows = np.repeat(np.arange(len(counts)), counts)
    findings.mark("blocks-empty", batch, np.concatenate([np.flatnonzero(counts == 0), block_rows[blank(flat)]]))
    items = rows.history.lengths
    most = -(-items // block_size) if block_size else items
    if max_blocks:
        most = np.minimum(most, max_blocks)
    wrong = (counts != most) if block_size and max_blocks else (counts > most)
    findings.mark("blocks-count", batch, wrong & (counts > 0) & (items > 0))
    if batch.config == "recurrent":
        with_blocks = np.flatnonzero(counts)
        last = flat.take(pa.array(counts.cumsum()[with_blocks] - 1))
        differs = pc.not_equal(last, summaries.take(pa.array(with_blocks))).to_numpy(zero_copy_only=False)
        findings.mark("summary-not-last", batch, with_blocks[differs])


def _titles(summaries: pa.Array, rows: Histories) -> tuple[np.ndarray, pa.Array]:
    """Rows whose summary contains the title of the target, and the title.

    Titles of a single word are ignored, for they occur by chance, and so are titles that an item of the history contains.
    """
    catalogue, codes = rows.catalogue, rows.target.codes
    matches: list[tuple[int, str]] = []
    if catalogue.titles is None:
        return np.zeros(0, int), None
    titles = catalogue.titles.take(pa.array(np.maximum(codes, 0))).to_pylist()
    starts = rows.history.lengths.cumsum() - rows.history.lengths
    for row, (title, summary) in enumerate(zip(titles, summaries.to_pylist(), strict=True)):
        if codes[row] < 0 or " " not in title.strip() or title not in summary:
            continue
        read = rows.history.codes[starts[row] : starts[row] + rows.history.lengths[row]]
        if re.search(rf"(?<!\w){re.escape(title)}(?!\w)", summary) and not _in_history_title(title, read, catalogue):
            matches.append((row, title))
    return np.array([row for row, _ in matches], int), pa.array([title for _, title in matches], pa.string())


def _in_history_title(title: str, codes: np.ndarray, catalogue: Catalogue) -> bool:
    """Whether the title of one of these items contains `title`."""
    assert catalogue.titles is not None
    return any(title in other for other in catalogue.titles.take(pa.array(codes[codes >= 0])).to_pylist())
