"""Read a list of ids from the text of one cell: JSON, Python, PostgreSQL, printed numpy arrays, or ids with separators."""

import ast
import json
import re
from collections.abc import Collection, Iterable

from trsr.dataset.build import jsonl

SEPARATORS = (" ", ",", "|", ";")
_ARRAY = re.compile(r"^array\((\[.*\])(?:,\s*dtype=.*)?\)$", re.S)
_TYPED = re.compile(r"\bnp\.\w+\(([^()]*)\)")  # as numpy 2 shows its strings and numbers
_STRING = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_QUOTED = re.compile(_STRING)
_WORD = re.compile(rf"""{_STRING}|[^\s,'"\[\]()]+""")
_KEY = re.compile(rf"\{{\s*(?:{_STRING})\s*:")  # of an object, which is no list
_MISSING = {"None", "nan", "NaN", "NaT", "null", "NULL", "<NA>", "..."}  # numpy prints `...` for what it leaves out


def split(text: str, separator: str = " ") -> list[object] | None:
    """The ids in a cell; None if it is not a list.

    Args:
        separator: One of SEPARATORS, for a cell without brackets. A space means any white space; spaces around other
            separators are ignored.
    """
    text = text.strip()
    if _in_braces(text):
        return _bracketed(text)
    if array := _ARRAY.match(text):
        text = array[1]
    if not text.startswith("["):
        if (ids := _bracketed(text)) is not None:
            return ids
        if separator == " ":
            return list(text.split())
        parts = [part.strip() for part in text.split(separator)]
        return list(parts[:-1] if not parts[-1] else parts)  # the text may end with a separator
    try:
        value = jsonl.loads(text)
        return value if isinstance(value, list) else None
    except (json.JSONDecodeError, RecursionError):
        return _bracketed(_TYPED.sub(r"\1", text))


def _in_braces(text: str) -> bool:
    """Whether a text is a list of PostgreSQL, or a set of Python: one id in braces may be called so."""
    if text[:1] + text[-1:] != "{}":
        return False
    inner = _QUOTED.sub("", text[1:-1])
    return not inner.strip() or ("," in inner and "{" not in inner and "}" not in inner)


def _bracketed(text: str) -> list[object] | None:
    """The words of a list in brackets, separated by commas as in Python and PostgreSQL or by spaces as in numpy; None if it is not
    one."""
    if text[:1] + text[-1:] not in ("[]", "()") and not _in_braces(text):
        return None
    if len(text) < 2 or _KEY.match(text):
        return None
    inner = text[1:-1]
    words = _WORD.findall(inner)
    gaps = [part.strip() for part in _WORD.split(inner)]
    if gaps[0] or gaps[-1] not in ("", ",") or len(set(gaps[1:-1])) > 1 or not {*gaps[1:-1]} <= {"", ","}:
        return None
    try:
        return None if _MISSING & {*words} else [_unquoted(word) for word in words]
    except (SyntaxError, ValueError):
        return None


def _unquoted(word: str) -> str:
    return ast.literal_eval(word) if word[0] in "'\"" else word


def bracketed(text: str) -> bool:
    """Whether a cell holds a list in brackets."""
    return text.lstrip().startswith(("[", "(", "array(")) or _in_braces(text.strip())


def separator_of(cells: Iterable[str], known: Collection[str]) -> str:
    """The separator with which the cells hold most known ids; of equal ones, the first of SEPARATORS."""
    counts = dict.fromkeys(SEPARATORS, 0)
    for cell in cells:
        for separator in SEPARATORS:
            counts[separator] += len(_known_ids(cell, separator, known))
    return max(SEPARATORS, key=counts.__getitem__)


def is_unsplit_list(identifier: str, known: Collection[str]) -> bool:
    """Whether an unknown id is in fact several known ids with another separator, or a known one with a bracket of the list."""
    if identifier.strip("[](){}<>\u2039\u203a\"'") in known:
        return True
    return any(
        _known_ids(identifier, separator, known) or identifier.strip(separator) in known for separator in SEPARATORS
    )


def _known_ids(text: str, separator: str, ids: Collection[str]) -> list[str]:
    return [part for part in split(text, separator) or () if isinstance(part, str) and part in ids]
