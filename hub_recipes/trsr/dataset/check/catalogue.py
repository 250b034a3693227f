"""The config `items`: its rules, and what the other configs ask of it."""

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

# Either fills most of a prompt of 2,048 tokens.
LONG_WORDS = 1000
LONG_CHARACTERS = 6000


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is kept of the items.

    Attributes:
        ids: Item ids, in the order of the rows.
        titles: Aligned with `ids`; None where texts are withheld.
        groups: (items,) equal numbers are equal texts.
    """

    ids: pa.Array
    titles: pa.Array | None
    groups: np.ndarray

    def codes(self, ids: pa.Array) -> np.ndarray:
        """A number for each id: its row in the catalogue, or a negative hash of an id that is not there.

        Equal ids have equal codes, in every batch; different ids have different ones but for one in 2^63.
        """
        if not len(ids):
            return np.zeros(0, np.int64)
        encoded = ids.dictionary_encode()
        known = pc.index_in(encoded.dictionary, value_set=self.ids)
        codes = known.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        strange = np.flatnonzero(codes < 0)
        codes[strange] = ~(hashes(encoded.dictionary.take(pa.array(strange))) >> np.uint64(1)).astype(np.int64)
        return codes[encoded.indices.to_numpy()]

    def same_text(self, codes: np.ndarray) -> np.ndarray:
        """Numbers that are equal for items of equal text; of an item without a row, its code."""
        if not len(self.groups):
            return codes
        return np.where(codes < 0, codes, self.groups[np.maximum(codes, 0)])


def hashes(values: pa.Array) -> np.ndarray:
    """64 bits of each string: (n,) uint64, the same on every machine."""
    digests = b"".join(blake2b(value.encode(), digest_size=8).digest() for value in values.to_pylist())
    return np.frombuffer(digests, "<u8")


def read_catalogue(read: Iterable[Batch], findings: Findings, lengths: Lengths) -> Catalogue:
    """Apply the rules to all items, and keep what the other configs need."""
    kept: list[Batch] = []
    digests: list[np.ndarray] = []
    titles: list[pa.Array] = []
    empty: list[np.ndarray] = []
    for batch in read:
        kept.append(Batch(batch.config, batch.split, batch.rows, batch.ids, {}))
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
        shown = [f"{counts[place]:,} words, {characters[place]:,} characters" for place in long.tolist()]
        findings.mark("item-long", batch, long, pa.array(shown, pa.string()))
    ids = pa.concat_arrays([batch.ids for batch in kept] or [pa.array([], pa.string())])
    groups = np.unique(np.concatenate(digests), return_inverse=True)[1] if digests else np.zeros(0, np.int64)
    same = _earlier(ids.dictionary_encode().indices.to_numpy())
    _mark_repeats(findings, kept, ids, "item-repeated", same)
    if titles:
        # Of an item that has a row already, and of one without text, something worse is said.
        told = (same < np.arange(len(ids))) | np.concatenate(empty)
        _mark_repeats(findings, kept, ids, "text-repeated", np.where(told, np.arange(len(ids)), _earlier(groups)))
    return Catalogue(ids, pa.concat_arrays(titles) if titles else None, groups)


def _earlier(values: np.ndarray) -> np.ndarray:
    """The first place of each value: (n,)."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


def _mark_repeats(findings: Findings, kept: list[Batch], ids: pa.Array, code: str, earlier: np.ndarray) -> None:
    """Mark the rows for which `earlier` names a row before them, and show the id of that row."""
    start = 0
    for batch in kept:
        stop = start + len(batch.rows)
        places = np.flatnonzero(earlier[start:stop] < np.arange(start, stop))
        findings.mark(code, batch, places, ids.take(pa.array(earlier[start + places])))
        start = stop
