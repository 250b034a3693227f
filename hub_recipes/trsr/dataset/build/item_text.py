"""`core.history.clean`, `unescape` and `sentence` over whole columns: the same text, most of it without a step in Python."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from trsr.core.field_values import ID_FIELDS, unescape
from trsr.core.history import clean, label
from trsr.errors import DataError

# Letters, marks, numbers, punctuation and symbols stay as they are; anything else is looked at character by character.
_DIRTY = r"[^ -~\pL\pM\pN\pP\pS]|  |^ | $"

# Far faster than looking for the substring "&".
ESCAPED = "&[#A-Za-z][0-9A-Za-z]+;"


def clean_column(values: pa.Array) -> pa.Array:
    """`clean` of every value; a null becomes an empty string."""
    values = pc.fill_null(values, "")
    dirty = pc.match_substring_regex(values, _DIRTY)
    if not pc.any(dirty).as_py():
        return values
    # Most are line breaks, tabs and double spaces.
    made = pc.utf8_trim(pc.binary_join(pc.ascii_split_whitespace(values.filter(dirty)), " "), " ")
    odd = pc.match_substring_regex(made, _DIRTY)
    if pc.any(odd).as_py():
        made = pc.replace_with_mask(made, odd, pa.array(map(clean, made.filter(odd).to_pylist()), pa.string()))
    return pc.replace_with_mask(values, dirty, made)


def unescape_column(values: pa.Array) -> pa.Array:
    """`unescape` of every value; a null stays null."""
    escaped = pc.fill_null(pc.match_substring_regex(values, ESCAPED), False)
    if not pc.any(escaped).as_py():
        return values
    made = pa.array(map(unescape, values.filter(escaped).to_pylist()), pa.string())
    return pc.replace_with_mask(values, escaped, made)


def sentences(fields: Mapping[str, pa.Array]) -> pa.Array:
    """`sentence` of every row.

    Args:
        fields: Clean columns of one length, in the order in which they are read. One named `text` stands alone.

    Raises:
        DataError: If a column named `text` stands beside others.
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
