"""Raw tables, block by block: the same rows as a reader that takes one line at a time, and every broken one by its line."""

import csv
import io
import zipfile

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trsr.core.history import clean
from trsr.dataset.build.csv_blocks import Layout
from trsr.dataset.build.scan import Faults, Reading, find, scan
from trsr.errors import DataError

TSV = Layout("\t", False, ("a", "b"))
CSV = Layout(",", True)


def read(folder, content: bytes, layout=TSV, wanted=("a", "b"), faults=None, **options):
    """All rows as tuples, the faults as (line, reason), and what was read."""
    (folder / "t").write_bytes(content)
    faults, reading = faults or Faults(), Reading()
    parts = scan(find(folder, "t"), layout, wanted, lambda table: (table, {}), faults, reading, **options)
    rows = [tuple(row.values()) for part in parts for row in part.to_pylist()]
    named = sorted((int(place.rsplit(" ", 1)[1]), why) for why, places in faults.named.items() for place in places)
    return rows, named, reading


def test_rows_with_a_wrong_number_of_cells_are_named(tmp_path):
    rows, named, reading = read(tmp_path, b"1\t2\n\n3\n4\t5\t6\r\n7\t8")
    assert rows == [("1", "2"), ("7", "8")]
    assert named == [(3, "fewer than 2 cells"), (4, "more than 2 cells")]
    assert (reading.rows, reading.broken) == (4, 2)


def test_a_cell_over_several_lines_counts_as_lines_not_as_rows(tmp_path):
    rows, named, _ = read(tmp_path, b'b,a\n"x\n""y"",\n",1\n\nz\n"""",2\n', CSV)
    assert rows == [("1", 'x\n"y",\n'), ("2", '"')]
    assert named == [(6, "fewer than 2 cells")]


def test_a_quote_within_a_cell_is_a_character_and_an_open_one_is_named(tmp_path):
    rows, named, _ = read(tmp_path, b'a,b\n5" pipe,1\n"x",2\n"y,3\nz,4\n', CSV)
    assert rows == [('5" pipe', "1"), ("x", "2"), ("z", "4")]
    assert named == [(4, "broken quotes (unexpected end of data)")]
    assert read(tmp_path, b'"a\t"b"\n')[0] == [('"a', '"b"')]


@pytest.mark.parametrize("size", [7, 30, None])
def test_a_carriage_return_by_itself_ends_no_row(tmp_path, size):
    """Also behind a stray quote, from which on the file is read line by line."""
    for inch in ('12"', "12in"):
        content = f'a,b\n1,Shelf {inch} wide\n2,New in\r2020\n3,"Chair"\r\n4,x'.encode()
        rows, named, _ = read(tmp_path, content, CSV, size=size)
        assert [clean(b) for _, b in rows] == [f"Shelf {inch} wide", "New in 2020", "Chair", "x"]
        assert named == []


LOG = [f"u{n},i{n % 7},{n}" + (',"one, two"' if n % 3 == 0 else ",x") for n in range(18_000)]


@pytest.mark.parametrize("size", [None, 5000])
def test_a_quote_that_is_never_closed_costs_its_own_line(tmp_path, size):
    for broken in (LOG[12].replace("u12", '"u12'), LOG[12].replace('two"', "two")):
        content = "\n".join(["user,item,time,note", *LOG[:12], broken, *LOG[13:]]).encode() + b"\n"
        rows, named, reading = read(tmp_path, content, CSV, ["user"], size=size)
        assert rows == [(f"u{n}",) for n in range(18_000) if n != 12]
        assert [line for line, _ in named] == [14]
        assert (reading.rows, reading.broken, reading.lines) == (18_000, 1, 1)


def test_lines_that_are_lost_are_counted_beside_rows(tmp_path):
    faults = Faults()
    content = b'a,b\n"1\n\n2",3,4\n5,6\n"7\n8"\n9\n'
    for odd in (b"", b'x"y,0\n'):
        rows, _, reading = read(tmp_path, content + odd, CSV, faults=faults)
        assert rows == [("5", "6")] + [('x"y', "0")] * bool(odd)
        assert (reading.broken, reading.lines) == (3, 6)
    name = f"{tmp_path.name}/t"
    assert faults.report() == (
        f"left out, fewer than 2 cells: 4 rows, 6 lines ({name}, lines 6 to 7; {name}, line 8; "
        f"{name}, lines 6 to 7; {name}, line 8)\n"
        f"left out, more than 2 cells: 2 rows, 6 lines ({name}, lines 2 to 4; {name}, lines 2 to 4)\n"
    )


@pytest.mark.parametrize("odd", [b"", b'5" pipe,1\n', b'"open,1\n'])
def test_a_long_cell_is_read_behind_an_odd_quote_too(tmp_path, odd):
    long = "x, y " * 40_000
    rows, named, _ = read(tmp_path, b"a,b\n" + odd + f'"{long}",2\n'.encode(), CSV)
    assert rows[-1] == (long, "2")
    assert len(named) == odd.startswith(b'"')


def test_bytes_that_are_no_text_are_named(tmp_path):
    rows, named, _ = read(tmp_path, b"1\t2\n\xff\t3\n\n4\t5\n")
    assert rows == [("1", "2"), ("4", "5")]
    assert named == [(2, "not UTF-8")]
    assert read(tmp_path, b'a,b\n"x",\xff\n5" pipe,\xff\n', CSV)[1] == [(2, "not UTF-8"), (3, "not UTF-8")]


def test_strict_stops_at_the_first(tmp_path):
    with pytest.raises(DataError, match=r"t, line 2: fewer than 2 cells\. Mend the row"):
        read(tmp_path, b"1\t2\n3\n4\n", faults=Faults(strict=True))


def test_what_work_finds_is_named_by_line(tmp_path):
    (tmp_path / "t").write_bytes(b'a\n"x\ny"\n\nbad\nz\n')
    faults, reading = Faults(), Reading()

    def work(table):
        values = table["a"].to_pylist()
        return values, {"it is bad": np.array([value == "bad" for value in values])}

    assert list(scan(find(tmp_path, "t"), CSV, ["a"], work, faults, reading)) == [["x\ny", "bad", "z"]]
    assert faults.named == {"it is bad": [f"{tmp_path.name}/t, line 5"]}
    assert faults.report() == f"left out, it is bad: 1 ({tmp_path.name}/t, line 5)\n"


def test_a_limit_takes_the_first_rows(tmp_path):
    content = b"".join(b"%d\t0\n" % n if n % 5 else b"x\n" for n in range(40))
    rows, named, reading = read(tmp_path, content, limit=12, size=20)
    assert [row[0] for row in rows] == [str(n) for n in range(12) if n % 5]
    assert [line for line, _ in named] == [1, 6, 11]
    assert (reading.rows, reading.sha256) == (12, None)


def test_headers_are_checked(tmp_path):
    with pytest.raises(DataError, match=r"there is no column 'a'; the columns are aa, b\. Did you mean 'aa'"):
        read(tmp_path, b"aa,b\n1,2\n", CSV)
    with pytest.raises(DataError, match="two columns have the same name: a"):
        read(tmp_path, b"a,a\n1,2\n", CSV)
    with pytest.raises(DataError, match="is empty: there is no header"):
        read(tmp_path, b"\n\n", CSV)


def test_files_are_found_in_folders_and_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        archive.writestr("inner/t", "1\t2\n")
        archive.writestr("one/u", "")
        archive.writestr("two/u", "")
    source = find(tmp_path / "raw.zip", "t")
    assert [part.to_pylist() for part in scan(source, TSV, "ab", lambda t: (t, {}), Faults(), Reading())] == [
        [{"a": "1", "b": "2"}]
    ]
    with pytest.raises(DataError, match="2 files 'u'"):
        find(tmp_path / "raw.zip", "u")
    (tmp_path / "no.zip").write_bytes(b"no")
    for where, message in (("no.zip", "cannot be read as a zip"), ("none", "No 't' in"), (".", "No 't' in")):
        with pytest.raises(DataError, match=message):
            find(tmp_path / where, "t")
    cut = (tmp_path / "raw.zip").read_bytes().replace(b"1\t2\n", b"1\t3\n")
    (tmp_path / "raw.zip").write_bytes(cut)
    with pytest.raises(DataError, match="t cannot be read: Bad CRC"):
        list(scan(find(tmp_path / "raw.zip", "t"), TSV, "ab", lambda t: (t, {}), Faults(), Reading()))


@given(st.lists(st.lists(st.text('ab",\n é\t', max_size=6), min_size=1, max_size=4), max_size=12), st.integers(1, 60))
@settings(deadline=None)
def test_blocks_read_as_csv_does(tmp_path_factory, made, size):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["a", "b"], *made])
    expected = [tuple(row) for row in csv.reader(io.StringIO(text.getvalue()), strict=True) if len(row) == 2][1:]
    rows, _, reading = read(tmp_path_factory.mktemp("csv"), text.getvalue().encode(), CSV, size=size, workers=2)
    assert rows == expected
    assert reading.rows == len([row for row in made if row])


@given(st.binary(max_size=60), st.sampled_from([TSV, CSV]), st.integers(1, 20))
@example(b'a,b\n"', CSV, 2)
@example(b'a,b\n1,"2"3\n', CSV, 20)
@example(b"\xef\xbb\xbf\n", TSV, 1)
@settings(deadline=None)
def test_whatever_the_bytes_the_rows_add_up(tmp_path_factory, content, layout, size):
    folder = tmp_path_factory.mktemp("bytes")
    content = content if layout is TSV else b"a,b\n" + content
    faults = Faults()
    rows, _, reading = read(folder, content, layout, size=size, faults=faults)
    assert reading.rows == len(rows) + sum(faults.counts.values())
    assert reading.broken == sum(faults.counts.values())
    whole = read(folder, content, layout)
    assert whole[0] == rows
    if faults.counts:
        with pytest.raises(DataError, match=r"t, line \d+: "):
            read(folder, content, layout, faults=Faults(strict=True))


CELL = st.text('b",\n', max_size=5).map(lambda text: "a" + text.replace("\n", "\na"))


@given(
    st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8),
    st.lists(st.integers(0, 80), max_size=2),
    st.integers(1, 60),
)
@settings(deadline=None, max_examples=25)
def test_whatever_quotes_are_broken_every_line_is_read_or_counted(tmp_path_factory, made, strays, size):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(made)
    content = text.getvalue()
    for place in strays:
        content = content[:place] + '"' + content[place:] if place < len(content) else content
    folder = tmp_path_factory.mktemp("quotes")
    rows, _, reading = read(folder, b"a,b\n" + content.encode(), CSV, size=size)
    read_lines = sum(1 + sum(cell.count("\n") for cell in row) for row in rows)
    assert read_lines + reading.lines == content.count("\n")
    if not strays:
        assert rows == made
    assert read(folder, b"a,b\n" + content.encode(), CSV)[0] == rows
