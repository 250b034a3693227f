"""Columns of text give the sentences that items one by one give."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from trsr.core.history import clean, sentence
from trsr.dataset.build.item_text import clean_column, sentences

TEXT = st.one_of(st.none(), st.text(max_size=12), st.text("a;: \t\n\x1f\u200b\u200d\xa0é", max_size=12))


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=8))
@settings(deadline=None)
def test_columns_are_as_items_one_by_one(rows):
    rows = [tuple(value and value.encode("utf-8", "replace").decode() for value in row) for row in rows]
    names = ("title", "a;b: c", "item_id")
    columns = [clean_column(pa.array(values, pa.string())) for values in zip(*rows, strict=True)] or [
        pa.array([], "string")
    ] * 3
    for column, values in zip(columns, zip(*rows, strict=True), strict=False):
        assert column.to_pylist() == [clean(value or "") for value in values]
    expected = [sentence(dict(zip(names, row, strict=True))) for row in rows]
    assert sentences(dict(zip(names, columns, strict=True))).to_pylist() == expected
