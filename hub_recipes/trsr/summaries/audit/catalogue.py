"""The items that summaries are compared with. Their texts are in memory; their words are computed when needed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from trsr.core.extractive import field_values
from trsr.dataset import contract
from trsr.errors import DataError
from trsr.summaries.audit.instructions import instructions
from trsr.summaries.audit.words import Words

RARE = 100  # a word is rare if it occurs in the texts of at most one item in this many
_CACHED = 20_000  # items whose words are cached


@dataclass(frozen=True, slots=True)
class ItemWords:
    """The words of an item.

    Attributes:
        length: Number of words of the text, separated by spaces.
        values: The field values that show a taste, such as genres and authors.
        injections: Wordings in the text that are prompt injection.
    """

    words: Words
    title: Words
    length: int
    values: frozenset[str]
    injections: frozenset[str]


class Catalogue:
    """The items by id.

    Args:
        tables: Tables with the columns `item_id`, `title` and `text`.

    Attributes:
        with_injection: Number of items whose text contains prompt injection.
    """

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._rows: dict[str, int] = {}
        titles, texts = [], []
        self._items_with: Counter[str] = Counter()
        self.with_injection = 0
        for table in tables:
            for item_id in table["item_id"].to_pylist():
                self._rows.setdefault(item_id, len(self._rows))
            titles.append(contract.one_chunk(table["title"]).cast(pa.large_string()))
            texts.append(contract.one_chunk(table["text"]).cast(pa.large_string()))
            for text in texts[-1].to_pylist():
                self._items_with.update(Words.of(text or "").content)
                self.with_injection += any(True for _ in instructions(text or ""))
        self._titles, self._texts = pa.concat_arrays(titles), pa.concat_arrays(texts)
        if len(self._texts) != len(self._rows):
            raise DataError("Some items occur twice. Run trsr check, which names them.")
        self.read = lru_cache(_CACHED)(self._read)

    def __len__(self) -> int:
        return len(self._rows)

    def rare(self, words: Words) -> frozenset[str]:
        """The content words that occur in few items of the catalogue."""
        most = max(1, len(self) // RARE)
        return frozenset(word for word in words.content if self._items_with[word] <= most)

    def _read(self, item_id: str) -> ItemWords:
        """The words of an item. Raises DataError for an unknown id."""
        if item_id not in self._rows:
            raise DataError(f"Item {item_id!r} is not in the items config. Run trsr check, which names its users.")
        row = self._rows[item_id]
        title, text = self._titles[row].as_py() or "", self._texts[row].as_py() or ""
        values = frozenset(Words.of(value).line for _, value, shows_taste in field_values(text) if shows_taste)
        injections = frozenset(wording for _, wording in instructions(text))
        return ItemWords(Words.of(text), Words.of(title), len(text.split()), values - {"  "}, injections)
