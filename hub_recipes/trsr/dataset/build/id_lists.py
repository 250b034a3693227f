"""A list of ids in one cell, in the spellings that are met: JSON, Python, printed numpy arrays, ids between separators."""

import ast
import json
import re
from collections.abc import Collection, Iterable

SEPARATORS = (" ", ",", "|", ";")
_ARRAY = re.compile(r"^array\((\[.*\])(?:,\s*dtype=.*)?\)$", re.S)
_TYPED = re.compile(r"\bnp\.\w+\(([^()]*)\)")  # as numpy 2 shows its strings and numbers
_WORD = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,'"\[\]()]+""")
_MISSING = {"None", "nan", "NaN", "NaT", "null", "<NA>", "..."}  # numpy prints `...` for what it leaves out


def split(text: str, separator: str = " ") -> list[object] | None:
    """The ids in a cell; None if it holds no list.

    Args:
        separator: One of SEPARATORS, for a cell without brackets; the space stands for any white space, and spaces around
            another one do not count.
    """
    text = text.strip()
    if array := _ARRAY.match(text):
        text = array[1]
    if not text.startswith("["):
        if (found := _bracketed(text)) is not None:
            return found
        if separator == " ":
            return list(text.split())
        ids = [part.strip() for part in text.split(separator)]
        return list(ids[:-1] if not ids[-1] else ids)  # one at the end separates nothing
    try:
        value = json.loads(text)
        return value if isinstance(value, list) else None
    except (json.JSONDecodeError, RecursionError):
        return _bracketed(_TYPED.sub(r"\1", text))


def _bracketed(text: str) -> list[object] | None:
    """Words between brackets, with commas between all of them or none, as Python and numpy write them."""
    if text[:1] + text[-1:] not in ("[]", "()") or len(text) < 2:
        return None
    inner = text[1:-1]
    words = _WORD.findall(inner)
    between = [part.strip() for part in _WORD.split(inner)]
    if between[0] or between[-1] not in ("", ",") or len(set(between[1:-1])) > 1 or not {*between[1:-1]} <= {"", ","}:
        return None
    try:
        return None if _MISSING & {*words} else [_unquoted(word) for word in words]
    except (SyntaxError, ValueError):
        return None


def _unquoted(word: str) -> str:
    return ast.literal_eval(word) if word[0] in "'\"" else word


def bracketed(text: str) -> bool:
    """Whether a cell says by itself where its list begins and ends."""
    return text.lstrip().startswith(("[", "(", "array("))


def separator_of(cells: Iterable[str], known: Collection[str]) -> str:
    """The separator of cells: the one that gives most known ids, and of equals the first of SEPARATORS."""
    found = dict.fromkeys(SEPARATORS, 0)
    for cell in cells:
        for separator in SEPARATORS:
            found[separator] += len(_known(cell, separator, known))
    return max(SEPARATORS, key=found.__getitem__)


def differently_separated(identifier: str, known: Collection[str]) -> bool:
    """Whether what was taken for an id, and is unknown, holds known ids and separators."""
    return any(_known(identifier, separator, known) or identifier.strip(separator) in known for separator in SEPARATORS)


def _known(text: str, separator: str, known: Collection[str]) -> list[str]:
    return [part for part in split(text, separator) or () if isinstance(part, str) and part in known]
