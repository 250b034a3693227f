"""`core.history.clean` and `sentence` over whole columns: the same text, most of it without a step in Python."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from trsr.core.history import ID_FIELDS, clean

# What is not one line of printable ASCII already; the rest is looked at character by character.
_DIRTY = r"[^ -~]|  |^ | $"


def clean_column(values: pa.Array) -> pa.Array:
    """`clean` of every value; a null becomes an empty string."""
    values = pc.fill_null(values, "")
    dirty = pc.match_substring_regex(values, _DIRTY)
    if not pc.any(dirty).as_py():
        return values
    return pc.replace_with_mask(values, dirty, pa.array(map(clean, values.filter(dirty).to_pylist()), pa.string()))


def sentences(fields: Mapping[str, pa.Array]) -> pa.Array:
    """`sentence` of every row.

    Args:
        fields: Clean columns of one length, in the order in which they are read; none is named `text`.
    """
    parts = []
    for name, values in fields.items():
        if name.lower() not in ID_FIELDS:
            label = clean(name).replace(";", ",").replace(":", " ")
            shown = pc.replace_substring(values, ";", ",")
            parts.append(pc.if_else(pc.equal(shown, ""), "", pc.binary_join_element_wise(f"; {label}: ", shown, "")))
    return pc.utf8_slice_codeunits(pc.binary_join_element_wise(*parts, ""), 2)
