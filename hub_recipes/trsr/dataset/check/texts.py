"""Rules for text that comes from outside: could it be taken for the structure of a prompt?

Our own prompts make every text one clean line first; a dataset is also read by programs that do not.
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

# What `trsr.core.history.clean` leaves out or makes a space, but for ordinary separators.
_CONTROLS = r"[\p{Cc}\p{Zl}\p{Zp}]|[^\P{Cf}\x{200c}\x{200d}]"
_CONTROLS_IN_LINES = r"[\x00-\x09\x0b-\x1f\x7f-\x9f\p{Zl}\p{Zp}]|[^\P{Cf}\x{200c}\x{200d}]"
_BREAK = r"[\n\r\x0b\x0c\x1c-\x1e\x{85}\x{2028}\x{2029}]"


def mark_texts(findings: Findings, batch: Batch, column: str) -> None:
    """Apply the rules to texts that a prompt would show on one line."""
    texts = batch.columns[column]
    for code, pattern in (
        ("control-character", _CONTROLS),
        ("control-token", CONTROL_TOKEN),
        ("forged-heading", rf"(?i){_BREAK}[\s\-*#>]*(?:{'|'.join(map(re.escape, headings()))})"),
    ):
        found = mask(pc.match_substring_regex(texts, pattern))
        findings.mark(code, batch, np.flatnonzero(found), texts.filter(pa.array(found)))


def mark_prompts(findings: Findings, batch: Batch, column: str) -> None:
    """Apply the rules to whole prompts, which have lines, and each heading at most once."""
    prompts = batch.columns[column]
    twice = np.zeros(len(prompts), bool)
    for heading in headings():
        twice |= pc.count_substring_regex(prompts, rf"(?m)^[ \t]*{re.escape(heading)}").to_numpy() > 1
    for code, found in (
        ("control-character", mask(pc.match_substring_regex(prompts, _CONTROLS_IN_LINES))),
        ("control-token", mask(pc.match_substring_regex(prompts, CONTROL_TOKEN))),
        ("forged-heading", twice),
    ):
        findings.mark(code, batch, np.flatnonzero(found), prompts.filter(pa.array(found)))


def mark_ids(findings: Findings, batch: Batch, code: str, ids: pa.Array, texts: pa.Array) -> None:
    """Texts that hold the id beside them, as a word.

    Ids of fewer than five characters, or without a digit, stand in texts by chance and are not looked for.
    """
    found = [
        place
        for place, (item_id, text) in enumerate(zip(ids.to_pylist(), texts.to_pylist(), strict=True))
        if item_id in text
        and len(item_id) >= 5
        and any(map(str.isdigit, item_id))
        and re.search(rf"(?<!\w){re.escape(item_id)}(?!\w)", text)
    ]
    places = np.array(found, int)
    findings.mark(code, batch, places, texts.take(pa.array(places)))


@cache
def headings() -> tuple[str, ...]:
    """The headings of every prompt, as they are rendered."""
    item, ranking, asking = Item("x"), RankingPrompt(), SummaryPrompts()
    rendered = (
        ranking.prefix("x", [item]),
        ranking.suffix(item),
        asking.block_text((item,)),
        asking.merge_text(["x"]),
        asking.update_text("x", (item,)),
    )
    lines = "\n".join(rendered).splitlines()
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip().endswith(":")))
