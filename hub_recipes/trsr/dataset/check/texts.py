"""Rules for texts from data: nothing in them may be mistaken for the structure of a prompt.

Our own prompts clean every text and put it on one line; other programs that read the dataset do not.
"""

import re
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trsr.core.control_tokens import CONTROL_TOKEN
from trsr.core.history import Item
from trsr.core.prompts import RankingPrompt
from trsr.core.summary_prompts import SummaryPrompts
from trsr.dataset.check.batches import Batch, mask
from trsr.dataset.check.findings import Findings

# Characters that `trsr.core.history.clean` removes or replaces by a space, except ordinary separators.
_HIDDEN = r"[\x{e0100}-\x{e01ef}]|[^\P{Cf}\x{200c}\x{200d}]"
_CONTROLS = rf"[\p{{Cc}}\p{{Zl}}\p{{Zp}}]|{_HIDDEN}"
_CONTROLS_IN_LINES = rf"[\x00-\x09\x0b-\x1f\x7f-\x9f\p{{Zl}}\p{{Zp}}]|{_HIDDEN}"
_BREAK = r"[\n\r\x0b\x0c\x1c-\x1e\x{85}\x{2028}\x{2029}]"


def mark_texts(findings: Findings, batch: Batch, column: str) -> None:
    """Apply the rules to texts that a prompt shows on one line."""
    texts = batch.columns[column]
    for code, pattern in (
        ("control-character", _CONTROLS),
        ("control-token", CONTROL_TOKEN),
        ("forged-heading", rf"(?i){_BREAK}[\s\-*#>]*(?:{'|'.join(map(re.escape, headings()))})"),
    ):
        matches = mask(pc.match_substring_regex(texts, pattern))
        findings.mark(code, batch, np.flatnonzero(matches), texts.filter(pa.array(matches)))


def mark_prompts(findings: Findings, batch: Batch, column: str) -> None:
    """Apply the rules to whole prompts, which have several lines, and each heading at most once."""
    prompts = batch.columns[column]
    repeated = np.zeros(len(prompts), bool)
    for heading in headings():
        repeated |= pc.count_substring_regex(prompts, rf"(?m)^[ \t]*{re.escape(heading)}").to_numpy() > 1
    for code, matches in (
        ("control-character", mask(pc.match_substring_regex(prompts, _CONTROLS_IN_LINES))),
        ("control-token", mask(pc.match_substring_regex(prompts, CONTROL_TOKEN))),
        ("forged-heading", repeated),
    ):
        findings.mark(code, batch, np.flatnonzero(matches), prompts.filter(pa.array(matches)))


def mark_ids(findings: Findings, batch: Batch, code: str, ids: pa.Array, texts: pa.Array) -> None:
    """Mark texts that contain the id of their own row as a word.

    Ids of fewer than five characters, or without a digit, are ignored: they occur in texts by chance.
    """
    matches = [
        row
        for row, (item_id, text) in enumerate(zip(ids.to_pylist(), texts.to_pylist(), strict=True))
        if item_id in text
        and len(item_id) >= 5
        and any(map(str.isdigit, item_id))
        and re.search(rf"(?<!\w){re.escape(item_id)}(?!\w)", text)
    ]
    rows = np.array(matches, int)
    findings.mark(code, batch, rows, texts.take(pa.array(rows)))


@cache
def headings() -> tuple[str, ...]:
    """The headings of all prompts, as they are rendered."""
    item, ranking, summaries = Item("x"), RankingPrompt(), SummaryPrompts()
    rendered = (
        ranking.prefix("x", [item]),
        ranking.suffix(item),
        summaries.block_text((item,)),
        summaries.merge_text(["x"]),
        summaries.update_text("x", (item,)),
    )
    lines = "\n".join(rendered).splitlines()
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip().endswith(":")))
