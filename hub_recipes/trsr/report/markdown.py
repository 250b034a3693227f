"""Text from outside as Markdown that shows it: it opens no link, tag, code, table cell or template."""

import re
from collections.abc import Sequence

from trsr.core.history import clean

_ENTITIES = {
    "<": "&lt;", "|": "&#124;", "[": "&#91;", "{": "&#123;", "*": "&#42;", "_": "&#95;", "\\": "&#92;", "`": "'"
}  # fmt: skip
_MARKUP = re.compile(r"[<|\[{*\\`]|(?<!\w)_|_(?!\w)")  # the underscores of a_name are not


class Markdown(str):
    """Text that we made ourselves and that is shown as it is. Every other string goes through `plain`."""


def plain(text: str) -> str:
    """`text` as one line without markup.

    Within a line: at the start of one, a `#` or `-` would still open a block, so a word of ours stands before it.
    """
    shown = re.sub(r"&(?=#|\w+;)", "&amp;", clean(text))
    return _MARKUP.sub(lambda match: _ENTITIES[match[0]], shown)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells as they are: what comes from outside goes through `plain` first."""
    lines = ["| " + " | ".join(line) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])
