"""Store every generation once, under a key of what it depends on. SQLite in WAL mode: safe against kill -9 and several writers.

Holds answers but no questions, so that an export holds no item texts. Knows nothing of how answers are judged or used.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from trsr.errors import UsageError
from trsr.records.files import beside

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
# The problem of an imported attempt, until its question is known: only with that it can be judged.
UNCHECKED = "unchecked"
_COLUMNS = ", ".join(SCHEMA.names[:-1])
_WAIT = 60  # seconds, for another process
_TABLES = f"""
-- A killed process loses nothing; a power failure may lose the last commits.
PRAGMA synchronous=NORMAL;
CREATE TABLE IF NOT EXISTS engines (id INTEGER PRIMARY KEY, identity TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (
  key TEXT, attempt INTEGER, text TEXT, problem TEXT, finish_reason TEXT, prompt_tokens INTEGER,
  completion_tokens INTEGER, engine INTEGER REFERENCES engines, origin TEXT, PRIMARY KEY (key, attempt)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS servers (engine INTEGER REFERENCES engines, server TEXT, PRIMARY KEY (engine, server)) WITHOUT ROWID;
CREATE TEMP TABLE asked_for (key TEXT PRIMARY KEY, times INTEGER) WITHOUT ROWID;
CREATE TEMP VIEW used AS
  SELECT {_COLUMNS}, engines.identity AS engine, origin, times
  FROM asked_for JOIN attempts USING (key) JOIN engines ON engines.id = attempts.engine ORDER BY key, attempt;
"""


def default_store(out: Path) -> Path:
    """The store of the run that writes the dataset folder `out`."""
    return beside(out, ".store.sqlite")


class Generation(NamedTuple):
    """One answer of a model to a question.

    Attributes:
        key: Checksum of the question and everything else that the answer depends on.
        attempt: Number of the attempt at this question, from 0; each has another seed.
        text: As the model wrote it.
        problem: Why it was rejected; empty if it is accepted as a summary; UNCHECKED if nobody has judged it.
    """

    key: str
    attempt: int
    text: str
    problem: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Store:
    """A file of generations. It remembers which keys were requested since it was opened; those are exported and counted.

    Args:
        path: SQLite file; created with its folder if missing.

    Raises:
        UsageError: Here and by its methods, if the file is no store, or another process keeps it for longer than a minute.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._engines: dict[str, int] = {}
        with self._usable():
            # In a notebook a run has a thread of its own, but only one thread uses the store at a time.
            self._base = sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
            self._log_ahead()
            self._base.executescript(_TABLES)

    def _log_ahead(self) -> None:
        """Have SQLite write a log ahead, so that readers need not wait. Here it does not wait itself for others that do so."""
        until = time.monotonic() + _WAIT
        while True:
            try:
                self._base.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            time.sleep(0.02)

    def bind_server(self, identity: Mapping[str, object], server: str, same_model: bool) -> None:
        """Bind the answers of an engine to the server that gives them: another one may have another model of that name.

        Servers before it that never answered are forgotten.

        Args:
            same_model: Whether the server is known to have the model that those before it had.

        Raises:
            UsageError: If the store has answers of another server.
        """
        engine = self._engine(json.dumps(identity, sort_keys=True, ensure_ascii=False))
        with self._usable():
            before = [name for (name,) in self._base.execute("SELECT server FROM servers WHERE engine = ?", (engine,))]
            answered = "SELECT EXISTS (SELECT 1 FROM attempts WHERE engine = ? AND origin = '')"
            if before and server not in before and not self._base.execute(answered, (engine,)).fetchone()[0]:
                # Such as one whose address was mistyped, or that refused the key.
                self._base.execute("DELETE FROM servers WHERE engine = ?", (engine,))
                before = []
            if before and server not in before and not same_model:
                raise UsageError(
                    f"The store {self._path} has answers of {identity['model']!r} by {', '.join(before)}, not by {server}, where "
                    "the name may stand for another model. Choose another --store, or say that it is the same: --same-model."
                )
            self._base.execute("INSERT OR IGNORE INTO servers VALUES (?, ?)", (engine, server))

    def get(self, keys: Sequence[str]) -> dict[str, list[Generation]]:
        """The attempts of each key that has any, first to last."""
        with self._usable():
            self._base.execute("BEGIN")  # writes to a temporary table alone, so other writers need not wait
            self._base.executemany(
                "INSERT INTO asked_for VALUES (?, 1) ON CONFLICT DO UPDATE SET times = times + 1",
                [(key,) for key in keys],
            )
            self._base.execute("COMMIT")
            generations: dict[str, list[Generation]] = {}
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                wanted = (
                    f"SELECT {_COLUMNS} FROM attempts WHERE key IN ({','.join('?' * len(part))}) ORDER BY key, attempt"
                )
                for row in self._base.execute(wanted, part):
                    generations.setdefault(row[0], []).append(Generation(*row))
        return generations

    def put(self, attempts: Iterable[Generation], identity: Mapping[str, object], origin: str = "") -> None:
        """Store attempts, all or none of them. An attempt that is stored already is not changed.

        Args:
            identity: The engine that made them: its name, model, revision and sampling.
            origin: Where they were imported from; empty for those of this run.
        """
        engine = self._engine(json.dumps(identity, sort_keys=True, ensure_ascii=False))
        with self._transaction():
            rows = ((*attempt, engine, origin) for attempt in attempts)
            self._base.executemany("INSERT OR IGNORE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def set_problems(self, attempts: Sequence[Generation]) -> None:
        """Store what was found when attempts were judged again, all or none of it."""
        with self._transaction():
            rows = ((attempt.problem, attempt.key, attempt.attempt) for attempt in attempts)
            self._base.executemany("UPDATE attempts SET problem = ? WHERE key = ? AND attempt = ?", rows)

    def counts(self) -> dict[str, Any]:
        """Counts of what was requested since the store was opened. They do not depend on whether the run was interrupted.

        Returns:
            `questions` (different ones), `asked` (attempts that were not imported), `retried` (questions with several attempts),
            `rejected` (attempts by reason), `reused` (repeated questions, and those answered by an import), `imported` (by
            origin), `tokens` of the attempts that were not imported, and `engines` with their numbers of attempts.
        """
        execute = self._base.execute
        questions, times = execute("SELECT count(*), coalesce(sum(times), 0) FROM asked_for").fetchone()
        attempts, prompt, completion = execute(
            "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM used "
            "WHERE origin = ''"
        ).fetchone()
        (retried,) = execute("SELECT count(*) FROM (SELECT 1 FROM used GROUP BY key HAVING count(*) > 1)").fetchone()
        rejected = dict(
            execute("SELECT problem, count(*) FROM used WHERE problem != '' GROUP BY problem ORDER BY problem")
        )
        imported = dict(
            execute("SELECT origin, count(DISTINCT key) FROM used WHERE origin != '' GROUP BY origin ORDER BY origin")
        )
        engines = execute("SELECT engine, count(*) FROM used GROUP BY engine ORDER BY engine").fetchall()
        return {
            "questions": questions,
            "asked": attempts,
            "retried": retried,
            "rejected": rejected,
            "reused": times - questions + sum(imported.values()),
            "imported": imported,
            "tokens": {"prompt": prompt, "completion": completion},
            "engines": [{**json.loads(identity), "attempts": count} for identity, count in engines],
        }

    def export(self, path: Path) -> int:
        """Write the attempts of the requested keys as Parquet, ordered by key. Returns their number."""
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
        """Copy everything into a new store."""
        with self._usable():
            self._base.backup(other._base)

    def __len__(self) -> int:
        """Number of attempts."""
        return self._base.execute("SELECT count(*) FROM attempts").fetchone()[0]

    def __iter__(self) -> Iterator[Generation]:
        yield from (Generation(*row) for row in self._base.execute(f"SELECT {_COLUMNS} FROM attempts"))

    def _engine(self, identity: str) -> int:
        if identity not in self._engines:
            with self._usable():
                self._base.execute("INSERT OR IGNORE INTO engines (identity) VALUES (?)", (identity,))
                (self._engines[identity],) = self._base.execute(
                    "SELECT id FROM engines WHERE identity = ?", (identity,)
                ).fetchone()
        return self._engines[identity]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._usable():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._base.in_transaction:  # a full disk has ended it
                    self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            # Others of its kinds are mistakes of ours, and a full disk is no fault of the file.
            if type(error) in (sqlite3.DatabaseError, sqlite3.OperationalError) and (
                getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL
            ):
                raise UsageError(f"{self._path} cannot be used as a store: {error}. Choose another --store.") from error
            raise
