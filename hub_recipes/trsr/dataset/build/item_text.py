"""`core.history.clean`, `unescape` and `sentence` for whole columns: the same texts, computed by pyarrow where possible."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from trsr.core.field_values import ID_FIELDS, unescape
from trsr.core.history import clean, label
from trsr.errors import DataError

# Texts of letters, marks, numbers, punctuation and symbols are clean already; others are cleaned. Invisible variation selectors are marks.
_UNCLEAN = r"[^ -~\pL\pM\pN\pP\pS]|[\x{e0100}-\x{e01ef}]|  |^ | $"

# Far faster than a search for the substring "&".
ESCAPED = "&[#A-Za-z][0-9A-Za-z]+;"


def clean_column(values: pa.Array) -> pa.Array:
    """`clean` of every value; a null becomes an empty string."""
    values = pc.fill_null(values, "")
    unclean = pc.match_substring_regex(values, _UNCLEAN)
    if not pc.any(unclean).as_py():
        return values
    # In most texts this removes all that is unclean: line breaks, tabs and double spaces.
    cleaned = pc.utf8_trim(pc.binary_join(pc.ascii_split_whitespace(values.filter(unclean)), " "), " ")
    still_unclean = pc.match_substring_regex(cleaned, _UNCLEAN)
    if pc.any(still_unclean).as_py():
        rest = pa.array(map(clean, cleaned.filter(still_unclean).to_pylist()), pa.string())
        cleaned = pc.replace_with_mask(cleaned, still_unclean, rest)
    return pc.replace_with_mask(values, unclean, cleaned)


def unescape_column(values: pa.Array) -> pa.Array:
    """`unescape` of every value; a null stays null."""
    escaped = pc.fill_null(pc.match_substring_regex(values, ESCAPED), False)
    if not pc.any(escaped).as_py():
        return values
    unescaped = pa.array(map(unescape, values.filter(escaped).to_pylist()), pa.string())
    return pc.replace_with_mask(values, escaped, unescaped)


def sentences(fields: Mapping[str, pa.Array]) -> pa.Array:
    """`sentence` of every row.

    Args:
        fields: Clean columns of equal length, in the order of the text. A column named `text` must be the only one.

    Raises:
        DataError: If there is a column named `text` and another one.
    """
    if "text" in fields:
        if len(fields) > 1:
            raise DataError(
                "A field named 'text' is an item's whole text, in requests as well: the others would not be read. "
                "Rename that column, leave it out of --text-fields, or name it alone."
            )
        return fields["text"]
    parts = []
    for name, values in fields.items():
        if name.lower() not in ID_FIELDS:
            shown = pc.replace_substring(values, ";", ",")
            parts.append(
                pc.if_else(pc.equal(shown, ""), "", pc.binary_join_element_wise(f"; {label(name)}: ", shown, ""))
            )
    return pc.utf8_slice_codeunits(pc.binary_join_element_wise(*parts, ""), 2)
