"""Made-up logs in the raw formats of MIND and Amazon-M2, at their size and skew, with the faults that such files have.

Words, ids and choices are drawn; nothing is taken from the real data. Same seed, same bytes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CHUNK = 50_000  # rows that are drawn and written at once
FAULTY = 10_000  # every so many rows, one cannot be read
ABROAD = 0.1  # sessions and products of Amazon-M2's locale DE, for one of UK
_DAY = 86_400
_LINE = 5  # ids that numpy prints in a line of 75 characters
PRODUCT_FIELDS = ("id", "locale", "title", "price", "brand", "color", "size", "model", "material", "author", "desc")
# Part of the products of Amazon-M2 that have the field.
_PRESENT = {"brand": 0.95, "color": 0.6, "size": 0.5, "model": 0.5, "material": 0.4, "author": 0.03, "desc": 0.55}


def write_mind(
    folder: Path, *, users: int = 1_000_000, impressions: int = 2_200_000, news: int = 161_000, seed: int = 0
) -> None:
    """`behaviors.tsv` and `news.tsv` as MIND-large has them.

    A user has one history, which every impression of the user repeats: lognormal, 33 items on average, 2% empty. An
    impression shows 37 news on average, of which 1.5 are clicked. Some titles hold quotes, some abstracts are missing;
    one row in `FAULTY` has a tab or a line break in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng([seed, 1])
    ids = pc.binary_join_element_wise("N", _text(draw.permutation(news) + 1), "")
    with (folder / "news.tsv").open("wb") as file:
        for start in range(0, news, CHUNK):
            file.write(_news(ids.slice(start, CHUNK), draw))
    lengths = np.where(draw.random(users) < 0.02, 0, np.clip(draw.lognormal(3.0, 1.0, users), 1, 500)).astype(np.int64)
    ends = np.cumsum(lengths)
    seen = _skewed(draw, news, int(ends[-1]), 0.6).astype(np.int32)  # all histories, end to end
    active = _skewed(draw, users, impressions, 0.3)
    order = draw.permutation(users)  # the active ones are not those with low ids
    with (folder / "behaviors.tsv").open("wb") as file:
        for start in range(0, impressions, CHUNK):
            user = order[active[start : start + CHUNK]]
            file.write(_behaviors(start, user, ends - lengths, lengths, seen, ids, draw))


def write_amazon_m2(folder: Path, *, sessions: int = 1_200_000, products: int = 500_000, seed: int = 0) -> None:
    """`sessions_train.csv` and `products_train.csv` as Amazon-M2 has them.

    A session has 4.2 items before the last on average, printed by numpy, hence over several lines when long. Texts hold
    commas, quotes, tabs and line breaks, and most fields are missing somewhere; one row in `FAULTY` cannot be read.

    Args:
        sessions, products: Of the locale UK; ABROAD times as many again are of the locale DE.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng([seed, 2])
    # Ten characters, as ASINs have: a serial number in base 36.
    ids = pc.binary_join_element_wise(
        "B0", pa.array([np.base_repr(n, 36).zfill(8) for n in _serials(draw, products)]), ""
    )
    with (folder / "products_train.csv").open("wb") as file:
        file.write((",".join(PRODUCT_FIELDS) + "\n").encode())
        for locale, some in (("UK", ids), ("DE", ids.slice(0, int(products * ABROAD)))):
            for start in range(0, len(some), CHUNK):
                file.write(_products(some.slice(start, CHUNK), locale, draw))
    with (folder / "sessions_train.csv").open("wb") as file:
        file.write(b"prev_items,next_item,locale\n")
        for start in range(0, int(sessions * (1 + ABROAD)), CHUNK):
            count = min(CHUNK, int(sessions * (1 + ABROAD)) - start)
            locales = pa.array(np.where(draw.random(count) * (1 + ABROAD) < 1, "UK", "DE"))
            file.write(_sessions(locales, ids, draw))


def _skewed(draw: np.random.Generator, items: int, count: int, power: float) -> np.ndarray:
    """`count` of `items`, the first the most popular: the n-th in proportion to n ** -power."""
    # The inverse of the continuous distribution, which needs no table.
    return np.minimum(items * draw.random(count) ** (1 / (1 - power)), items - 1).astype(np.int64)


def _serials(draw: np.random.Generator, count: int) -> np.ndarray:
    return draw.permutation(count) * 5_000_011 % 36**8  # prime to 36: all differ


def _text(values: np.ndarray) -> pa.Array:
    return pc.cast(pa.array(values), pa.string())


def _words(draw: np.random.Generator) -> pa.Array:
    """Made-up words, the frequent ones first and short."""
    sounds = [onset + vowel for onset in "b d f g k l m n p r s t v z st tr".split() for vowel in "a e i o u".split()]
    return pa.array(["".join(draw.choice(sounds, 1 + (n > 60) + (n > 3000))) for n in range(20_000)])


WORDS = _words(np.random.default_rng(0))


def _prose(draw: np.random.Generator, count: int, average: int, breaks: Sequence[str] = ()) -> pa.Array:
    """Texts of about `average` words, one in 50 of the words followed by one of `breaks`."""
    lengths = draw.poisson(average, count)
    words = WORDS.take(pa.array(_skewed(draw, len(WORDS), int(lengths.sum()), 0.7)))
    if breaks:
        ends = np.where(draw.random(len(words)) < 0.02, draw.integers(1, len(breaks) + 1, len(words)), 0)
        words = pc.binary_join_element_wise(words, pa.array(["", *breaks]).take(pa.array(ends)), "")
    return _joined(words, lengths, " ")


def _joined(parts: pa.Array, lengths: np.ndarray, between: str) -> pa.Array:
    """Consecutive `parts`, as many a text as `lengths` says."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, parts), between)


def _sometimes(draw: np.random.Generator, values: pa.Array, part: float, otherwise: str = "") -> pa.Array:
    return pc.if_else(pa.array(draw.random(len(values)) < part), values, otherwise)


def _rows(columns: Sequence[pa.Array], draw: np.random.Generator) -> bytes:
    """Lines of tab-separated cells, one in `FAULTY` with a tab or a line break too many."""
    lines = pc.binary_join_element_wise(*columns, "\t").to_pylist()
    for index in range(FAULTY // 2, len(lines), FAULTY):
        middle = len(lines[index]) // 2
        lines[index] = lines[index][:middle] + "\t\n"[draw.integers(2)] + lines[index][middle:]
    return ("\n".join(lines) + "\n").encode()


def _news(ids: pa.Array, draw: np.random.Generator) -> bytes:
    count = len(ids)
    topics = WORDS.take(pa.array(draw.integers(18, size=count)))
    entities = pc.binary_join_element_wise(
        '[{"Label": "', _prose(draw, count, 2), '", "Type": "O", "WikidataId": "Q1", "Confidence": 1.0}]', ""
    )
    return _rows(
        [
            ids,
            topics,
            pc.binary_join_element_wise(topics, WORDS.take(pa.array(draw.integers(270, size=count))), ""),
            _prose(draw, count, 10, ("'s", '"', ",", "é", ";")),
            _sometimes(draw, _prose(draw, count, 35, (",", ".", '"')), 0.95),
            pc.binary_join_element_wise("https://assets.example.com/", ids, ".html", ""),
            entities,
            _sometimes(draw, entities, 0.8, "[]"),
        ],
        draw,
    )


def _behaviors(
    start: int,
    user: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    seen: np.ndarray,
    ids: pa.Array,
    draw: np.random.Generator,
) -> bytes:
    count, sizes = len(user), lengths[user]
    # Where each history's items lie in `seen`: counted on from the history's start.
    first = np.cumsum(sizes) - sizes
    flat = np.arange(sizes.sum()) + np.repeat(starts[user] - first, sizes)
    shown = np.clip(draw.lognormal(3.1, 1.0, count), 2, 300).astype(np.int64)
    clicked = draw.random(int(shown.sum())) < np.repeat(0.5 / shown, shown)
    clicked[np.cumsum(shown) - 1 - draw.integers(0, shown)] = True
    labels = pa.array(["-0", "-1"]).take(pa.array(clicked.astype(np.int8)))
    candidates = pc.binary_join_element_wise(ids.take(pa.array(_skewed(draw, len(ids), len(clicked), 0.5))), labels, "")
    return _rows(
        [
            _text(np.arange(start + 1, start + count + 1)),
            pc.binary_join_element_wise("U", _text(user + 1), ""),
            _moments(draw.integers(0, 6 * _DAY, count)),
            _joined(ids.take(pa.array(seen[flat])), sizes, " "),
            _joined(candidates, shown, " "),
        ],
        draw,
    )


def _moments(seconds: np.ndarray) -> pa.Array:
    """As in `11/9/2019 2:14:46 PM`, from 9 November 2019."""
    day, second = 9 + seconds // _DAY, seconds % _DAY
    hour, rest = second // 3600, second % 3600
    two = pa.array([f"{n:02}" for n in range(60)])
    clock = [_text((hour + 11) % 12 + 1), two.take(pa.array(rest // 60)), two.take(pa.array(rest % 60))]
    return pc.binary_join_element_wise(
        pc.binary_join_element_wise("11", _text(day), "2019", "/"),
        pc.binary_join_element_wise(*clock, ":"),
        pa.array(["AM", "PM"]).take(pa.array(hour // 12)),
        " ",
    )


def _sessions(locales: pa.Array, ids: pa.Array, draw: np.random.Generator) -> bytes:
    lengths = np.clip(draw.lognormal(1.05, 0.85, len(locales)), 1, 250).astype(np.int64) + 1
    lengths[draw.random(len(locales)) < 0.3] = 2
    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    last = position == np.repeat(lengths - 1, lengths)
    ends = np.where(last, 2, np.where(position % _LINE == _LINE - 1, 1, 0))
    items = ids.take(pa.array(_skewed(draw, len(ids), len(position), 0.6)))
    quoted = pc.binary_join_element_wise("'", items, pa.array(["' ", "'\n ", "'"]).take(pa.array(ends)), "")
    printed = pc.binary_join_element_wise("[", _joined(quoted, lengths, ""), "]", "")
    following = ids.take(pa.array(_skewed(draw, len(ids), len(locales), 0.6)))
    return _csv({"prev_items": printed, "next_item": following, "locale": locales}, "prev_items")


def _products(ids: pa.Array, locale: str, draw: np.random.Generator) -> bytes:
    count, breaks = len(ids), (",", ' 10"', "\t", "\n", " é", "; ")
    columns = {
        "id": ids,
        "locale": pa.array([locale] * count),
        "title": _prose(draw, count, 16, breaks),
        "price": _text(np.round(draw.lognormal(2.7, 1, count), 2)),
        **{name: _prose(draw, count, 2) for name in ("brand", "color", "size", "model", "material", "author")},
        "desc": _prose(draw, count, 90, breaks),
    }
    return _csv({name: _sometimes(draw, columns[name], _PRESENT.get(name, 1)) for name in PRODUCT_FIELDS}, "title")


def _csv(columns: dict[str, pa.Array], broken: str) -> bytes:
    """Rows of CSV; of one in `FAULTY`, the cell `broken` and its comma are gone."""
    cells = {name: _quoted(values) for name, values in columns.items()}
    lines = pc.binary_join_element_wise(*cells.values(), ",").to_pylist()
    for index in range(FAULTY // 2, len(lines), FAULTY):
        lines[index] = ",".join(str(values[index]) for name, values in cells.items() if name != broken)
    return ("\n".join(lines) + "\n").encode()


def _quoted(values: pa.Array) -> pa.Array:
    """Cells as pandas writes them: in quotes where needed."""
    within = pc.binary_join_element_wise('"', pc.replace_substring(values, '"', '""'), '"', "")
    return pc.if_else(pc.match_substring_regex(values, '[",\n]'), within, values)
