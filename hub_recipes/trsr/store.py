"""Every generation kept once, keyed by its content; safe against kill -9 and several writers (SQLite in WAL mode)."""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

from trsr.core.history import Block
from trsr.core.summarize import Summarizer


class Store:
    """A file of finished generations.

    Args:
        path: SQLite file; made with its folder if missing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._base = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("CREATE TABLE IF NOT EXISTS generations (key TEXT PRIMARY KEY, text TEXT NOT NULL)")

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            marks = ",".join("?" * len(part))
            found.update(self._base.execute(f"SELECT key, text FROM generations WHERE key IN ({marks})", part))
        return found

    def put(self, made: Mapping[str, str]) -> None:
        self._base.execute("BEGIN IMMEDIATE")
        self._base.executemany("INSERT OR IGNORE INTO generations VALUES (?, ?)", made.items())
        self._base.execute("COMMIT")

    def __len__(self) -> int:
        return self._base.execute("SELECT count(*) FROM generations").fetchone()[0]


class Stored:
    """A Summarizer that asks another one only for what the store does not hold, each question once.

    Args:
        summarizer: Asked in parts of `part` questions, so that a killed run loses at most one part.
        store: Where answers are kept.
        identity: What the answers depend on beside the question: engine, model, revision, prompts, sampling.
    """

    def __init__(self, summarizer: Summarizer, store: Store, identity: Mapping[str, object], part: int = 64) -> None:
        self._summarizer = summarizer
        self._store = store
        self._identity = json.dumps(identity, sort_keys=True)
        self._part = part
        self.asked = 0

    def block(self, blocks: Sequence[Block]) -> list[str]:
        return self._answer("block", blocks, _texts, self._summarizer.block)

    def merge(self, summaries: Sequence[Sequence[str]]) -> list[str]:
        return self._answer("merge", summaries, list, self._summarizer.merge)

    def update(self, pairs: Sequence[tuple[str, Block]]) -> list[str]:
        return self._answer("update", pairs, lambda pair: [pair[0], _texts(pair[1])], self._summarizer.update)

    def _answer(self, operation: str, questions: Sequence, plain: Callable, ask: Callable) -> list[str]:
        keys = [self._key(operation, plain(question)) for question in questions]
        known = self._store.get(list(dict.fromkeys(keys)))
        missing: dict[Hashable, object] = {}
        for key, question in zip(keys, questions, strict=True):
            if key not in known:
                missing.setdefault(key, question)
        new = list(missing.items())
        for start in range(0, len(new), self._part):
            part = new[start : start + self._part]
            made: dict[str, str] = dict(
                zip((str(key) for key, _ in part), ask([question for _, question in part]), strict=True)
            )
            self._store.put(made)
            self.asked += len(made)
            known |= made
        return [known[key] for key in keys]

    def _key(self, operation: str, question: object) -> str:
        text = json.dumps([self._identity, operation, question], ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _texts(block: Block) -> list[str]:
    return [item.text for item in block]
