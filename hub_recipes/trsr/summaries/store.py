"""Every generation kept once, keyed by what it depends on; safe against kill -9 and several writers (SQLite in WAL mode).

Holds answers and no questions: an export holds no text of items. Knows nothing of how answers are judged or used.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "attempt": pa.int64(),
        "text": pa.string(),
        "problem": pa.string(),
        "finish_reason": pa.string(),
        "prompt_tokens": pa.int64(),
        "completion_tokens": pa.int64(),
        "engine": pa.string(),
    }
)
_COLUMNS = ", ".join(SCHEMA.names[:-1])
_TABLES = f"""
PRAGMA journal_mode=WAL;
-- A killed process loses nothing; only a power cut can take the last moments.
PRAGMA synchronous=NORMAL;
CREATE TABLE IF NOT EXISTS engines (id INTEGER PRIMARY KEY, identity TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (
  key TEXT, attempt INTEGER, text TEXT, problem TEXT, finish_reason TEXT, prompt_tokens INTEGER,
  completion_tokens INTEGER, engine INTEGER REFERENCES engines, origin TEXT, PRIMARY KEY (key, attempt)
) WITHOUT ROWID;
CREATE TEMP TABLE asked_for (key TEXT PRIMARY KEY, times INTEGER) WITHOUT ROWID;
CREATE TEMP VIEW used AS
  SELECT {_COLUMNS}, engines.identity AS engine, origin, times
  FROM asked_for JOIN attempts USING (key) JOIN engines ON engines.id = attempts.engine ORDER BY key, attempt;
"""


class Generation(NamedTuple):
    """One attempt at an answer.

    Attributes:
        key: Of the question and all else that the answer depends on.
        attempt: From 0; a later one had another seed.
        text: As the model wrote it.
        problem: Why it is no summary; empty if it is one.
    """

    key: str
    attempt: int
    text: str
    problem: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Store:
    """A file of generations. It remembers which it was asked for since it was opened: those are exported and counted.

    Args:
        path: SQLite file; made with its folder if missing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A run beside a notebook's loop has a thread of its own, and no other uses the store meanwhile.
        self._base = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        self._base.executescript(_TABLES)
        self._engines: dict[str, int] = {}

    def get(self, keys: Sequence[str]) -> dict[str, list[Generation]]:
        """The attempts at each key that has any, first to last."""
        self._base.execute("BEGIN")  # of the temporary table alone: other writers are not kept waiting
        self._base.executemany(
            "INSERT INTO asked_for VALUES (?, 1) ON CONFLICT DO UPDATE SET times = times + 1", [(key,) for key in keys]
        )
        self._base.execute("COMMIT")
        found: dict[str, list[Generation]] = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            wanted = f"SELECT {_COLUMNS} FROM attempts WHERE key IN ({','.join('?' * len(part))}) ORDER BY key, attempt"
            for row in self._base.execute(wanted, part):
                found.setdefault(row[0], []).append(Generation(*row))
        return found

    def put(self, made: Iterable[Generation], identity: Mapping[str, object], origin: str = "") -> None:
        """Keep attempts, all or none of them; one that is kept already stays as it is.

        Args:
            identity: The engine that made them: its name, model, revision, sampling.
            origin: Where they were imported from; empty for those made here.
        """
        engine = self._engine(json.dumps(identity, sort_keys=True, ensure_ascii=False))
        self._base.execute("BEGIN IMMEDIATE")
        try:
            rows = ((*one, engine, origin) for one in made)
            self._base.executemany("INSERT OR IGNORE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    def counts(self) -> dict[str, Any]:
        """Of what was asked for since the store was opened: the same for a run that was broken off and for one that was not.

        Returns:
            `questions` (different ones), `asked` (attempts made for this store), `retried` (questions with more than one),
            `rejected` (attempts that were no summaries, by reason), `reused` (questions put again, or answered by an import), `imported` by origin, `tokens` of what was asked,
            `engines` by number of attempts.
        """
        one = self._base.execute
        questions, times = one("SELECT count(*), coalesce(sum(times), 0) FROM asked_for").fetchone()
        asked, prompt, completion = one(
            "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM used "
            "WHERE origin = ''"
        ).fetchone()
        (retried,) = one("SELECT count(*) FROM (SELECT 1 FROM used GROUP BY key HAVING count(*) > 1)").fetchone()
        rejected = dict(one("SELECT problem, count(*) FROM used WHERE problem != '' GROUP BY problem ORDER BY problem"))
        imported = dict(
            one("SELECT origin, count(DISTINCT key) FROM used WHERE origin != '' GROUP BY origin ORDER BY origin")
        )
        engines = one("SELECT engine, count(*) FROM used GROUP BY engine ORDER BY engine").fetchall()
        return {
            "questions": questions,
            "asked": asked,
            "retried": retried,
            "rejected": rejected,
            "reused": times - questions + sum(imported.values()),
            "imported": imported,
            "tokens": {"prompt": prompt, "completion": completion},
            "engines": [{**json.loads(identity), "attempts": count} for identity, count in engines],
        }

    def export(self, path: Path) -> int:
        """Write what was asked for since the store was opened as Parquet, ordered by key; the number of attempts."""
        rows = self._base.execute(f"SELECT {', '.join(SCHEMA.names)} FROM used")
        written = 0
        with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            while part := rows.fetchmany(10_000):
                columns = [
                    pa.array(column, kind) for column, kind in zip(zip(*part, strict=True), SCHEMA.types, strict=True)
                ]
                writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
                written += len(part)
        return written

    def close(self) -> None:
        self._base.close()

    def copy_to(self, other: "Store") -> None:
        """Put all that is kept here into a new store."""
        self._base.backup(other._base)

    def __len__(self) -> int:
        """Number of attempts."""
        return self._base.execute("SELECT count(*) FROM attempts").fetchone()[0]

    def __iter__(self) -> Iterator[Generation]:
        yield from (Generation(*row) for row in self._base.execute(f"SELECT {_COLUMNS} FROM attempts"))

    def _engine(self, identity: str) -> int:
        if identity not in self._engines:
            self._base.execute("INSERT OR IGNORE INTO engines (identity) VALUES (?)", (identity,))
            (self._engines[identity],) = self._base.execute(
                "SELECT id FROM engines WHERE identity = ?", (identity,)
            ).fetchone()
        return self._engines[identity]
