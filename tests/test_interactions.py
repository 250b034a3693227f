"""A log as columns gives what it gives row by row, or leaves it to the rows."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts.tables import read_sequences
from trsr.interactions import read_columns
from trsr.rows import rows

NAMES = {"user": "u", "item": "i"}
EVENT = st.tuples(st.sampled_from("xyz"), st.sampled_from("abcd"), st.sampled_from(["1", "10", "9.5", "-3", "007"]))


@given(
    st.lists(EVENT, min_size=1, max_size=20), st.sampled_from(["t", None]), st.sampled_from(["csv", "tsv", "parquet"])
)
@settings(deadline=None, max_examples=40)
def test_columns_are_as_rows(tmp_path_factory, events, time, form):
    path = tmp_path_factory.mktemp("log") / f"log.{form}"
    if form == "parquet":
        pq.write_table(pa.table(dict(zip("uit", map(list, zip(*events, strict=True)), strict=True))), path)
    else:
        sep = "," if form == "csv" else "\t"
        text = [sep.join("uit"), *(sep.join(event) for event in events)]
        path.write_text("\n".join(text) + "\n", encoding="utf-8")
    found = read_columns(path, "abc", time=time, drop=True, **NAMES)
    assert found == read_sequences(rows(path), set("abc"), time=time, drop=True, **NAMES)


@pytest.mark.parametrize(
    "content",
    [
        "u,i,t\nx,a,2024-01-01\n",  # a date
        "u,i,t\nx,a,\n",
        "u,i,t\nx y,a,1\n",  # a space within an id
        "u,i,t\nx,d,1\n",  # an unknown item
        "u,i,t\nx,a\n",
        "u,i\nx,a\n",
        "u,i,t\n",
        "",
    ],
)
def test_what_needs_a_look_is_left_to_the_rows(tmp_path, content):
    path = tmp_path / "log.csv"
    path.write_text(content, encoding="utf-8")
    assert read_columns(path, "abc", time="t", **NAMES) is None
