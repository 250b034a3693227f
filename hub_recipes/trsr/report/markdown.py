"""Escape untrusted text for Markdown: it cannot start a link, tag, code, mathematics, table cell or template, nor end a block of code."""

import json
import re
from collections.abc import Mapping, Sequence
from unicodedata import category

from trsr.core.history import clean

_ENTITIES = {
    "<": "&lt;", "|": "&#124;", "[": "&#91;", "{": "&#123;", "*": "&#42;", "_": "&#95;", "\\": "&#92;", "`": "'", "~": "&#126;", "$": "&#36;"
}  # fmt: skip
_MARKUP = re.compile(r"[<|\[{*\\`~$]|(?<!\w)_|_(?!\w)")  # not the underscores inside a_name
# Web and mail addresses, which GitHub's Markdown links wherever they stand. An entity for one of their own characters is not
# enough, for some renderers look for them in decoded text: an invisible character, WORD JOINER, comes in between.
_ADDRESS = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=[\w.+-])(?=@[\w-]+\.)", re.IGNORECASE)
_JOINER = "&#8288;"


class Markdown(str):
    """Trusted text, which is shown without escaping. Every other string goes through `plain`."""


def plain(text: str) -> str:
    """Return `text` as one line without markup.

    For use within a line only: at the start of a line, a `#` or `-` would still open a block.
    """
    escaped = re.sub(r"&(?=#|\w+;)", "&amp;", clean(text))
    return _MARKUP.sub(lambda match: _ENTITIES[match[0]], _ADDRESS.sub(_JOINER, escaped))


def link(address: str) -> Markdown | str:
    """A web address as a link; any other text as `plain` shows it."""
    whole = re.fullmatch(r"https?://[^\s<>|`]+", address) and address.isprintable()
    return Markdown(f"<{address}>") if whole else address


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table. Cells are not escaped: pass untrusted text through `plain` first."""
    lines = ["| " + " | ".join(line) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def code(values: Mapping | Sequence | str, indent: int = 4) -> str:
    """Values as JSON, which for strings and lists of them is Python too; no value can end a code block in Markdown."""

    def escaped(char: str) -> str:
        # Beyond the BMP, JSON has two escapes for what is one character in Python. There a character may be newer than Python's tables,
        # and be shown as it is; only one without a shape is escaped.
        shown = char.isprintable() or char == "\n" or (ord(char) > 0xFFFF and category(char) != "Cf")
        return char if shown else json.dumps(char)[1:-1]

    text = json.dumps(values, indent=indent, ensure_ascii=False).replace("`", "\\u0060").replace("<", "\\u003c")
    return "".join(map(escaped, text))


def fence(text: str, language: str) -> str:
    """A Markdown code block; its fence is longer than any in `text`, so that the text cannot end it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
