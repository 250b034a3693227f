"""Check the config `items`, and keep what the rules of other configs need from it."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trsr.dataset.check.batches import Batch
from trsr.dataset.check.findings import Findings
from trsr.dataset.check.lengths import Lengths, blank, words
from trsr.dataset.check.texts import mark_ids, mark_texts

# A text of either length fills most of a prompt of 2,048 tokens.
LONG_WORDS = 1000
LONG_CHARACTERS = 6000


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The items of a dataset.

    Attributes:
        ids: Item ids, in the order of the rows.
        titles: Aligned with `ids`; None if texts are withheld.
        groups: (items,) numbers, equal for items with equal texts.
    """

    ids: pa.Array
    titles: pa.Array | None
    groups: np.ndarray

    def codes(self, ids: pa.Array) -> np.ndarray:
        """A number for each id: its row in the catalogue, or a negative hash if the id is unknown.

        Equal ids have equal codes in all batches; different unknown ids have different codes with a probability of 1 - 2^-63.
        """
        if not len(ids):
            return np.zeros(0, np.int64)
        encoded = ids.dictionary_encode()
        rows = pc.index_in(encoded.dictionary, value_set=self.ids)
        codes = rows.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        unknown = np.flatnonzero(codes < 0)
        codes[unknown] = ~(hashes(encoded.dictionary.take(pa.array(unknown))) >> np.uint64(1)).astype(np.int64)
        return codes[encoded.indices.to_numpy()]

    def same_text(self, codes: np.ndarray) -> np.ndarray:
        """A number for each code, equal for items with equal texts; for an unknown item, its code."""
        if not len(self.groups):
            return codes
        return np.where(codes < 0, codes, self.groups[np.maximum(codes, 0)])


def hashes(values: pa.Array) -> np.ndarray:
    """A 64-bit hash of each string: (n,) uint64, the same on every machine."""
    digests = b"".join(blake2b(value.encode(), digest_size=8).digest() for value in values.to_pylist())
    return np.frombuffer(digests, "<u8")


def read_catalogue(read: Iterable[Batch], findings: Findings, lengths: Lengths) -> Catalogue:
    """Check all items, and return the catalogue."""
    batches: list[Batch] = []
    digests: list[np.ndarray] = []
    titles: list[pa.Array] = []
    empty: list[np.ndarray] = []
    for batch in read:
        batches.append(Batch(batch.config, batch.split, batch.rows, batch.ids, {}))
        if "text" not in batch.columns:
            continue
        texts = batch.columns["text"]
        digests.append(hashes(texts))
        titles.append(batch.columns["title"])
        empty.append(blank(texts))
        findings.mark("item-without-text", batch, empty[-1])
        findings.mark("item-without-title", batch, blank(titles[-1]))
        mark_ids(findings, batch, "item-id-in-text", batch.ids, texts)
        mark_texts(findings, batch, "text")
        counts, characters = words(texts), pc.utf8_length(texts).to_numpy()
        lengths.add("item text, words", counts)
        lengths.add("item text, characters", characters)
        long = np.flatnonzero((counts > LONG_WORDS) | (characters > LONG_CHARACTERS))
        shown = [f"{counts[row]:,} words, {characters[row]:,} characters" for row in long.tolist()]
        findings.mark("item-long", batch, long, pa.array(shown, pa.string()))
    ids = pa.concat_arrays([batch.ids for batch in batches] or [pa.array([], pa.string())])
    groups = np.unique(np.concatenate(digests), return_inverse=True)[1] if digests else np.zeros(0, np.int64)
    same = _first_rows(ids.dictionary_encode().indices.to_numpy())
    _mark_repeats(findings, batches, ids, "item-repeated", same)
    if titles:
        # Items that repeat an id or have no text are reported already, as errors.
        reported = (same < np.arange(len(ids))) | np.concatenate(empty)
        _mark_repeats(
            findings, batches, ids, "text-repeated", np.where(reported, np.arange(len(ids)), _first_rows(groups))
        )
    return Catalogue(ids, pa.concat_arrays(titles) if titles else None, groups)


def _first_rows(values: np.ndarray) -> np.ndarray:
    """For each value, the row of its first occurrence: (n,)."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


def _mark_repeats(findings: Findings, batches: list[Batch], ids: pa.Array, code: str, earlier: np.ndarray) -> None:
    """Mark the rows with an earlier row in `earlier`, and show the id of that row."""
    start = 0
    for batch in batches:
        stop = start + len(batch.rows)
        positions = np.flatnonzero(earlier[start:stop] < np.arange(start, stop))
        findings.mark(code, batch, positions, ids.take(pa.array(earlier[start + positions])))
        start = stop
