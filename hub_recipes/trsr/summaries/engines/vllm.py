"""Summaries by vLLM in its own environment: questions are written to a Parquet file, and answers imported as a cache.

    trsr summarize DATASET --out DIR --engine vllm:MODEL --questions questions.parquet
    uv run hub_recipes/jobs/vllm_summarize.py questions.parquet --out generations
    trsr summarize DATASET --out DIR --engine vllm:MODEL --questions questions.parquet --cache generations

Repeat the last two commands until no question is open: one round for each level of summaries, and one for each retry.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trsr.core.answer import Answer
from trsr.errors import UsageError
from trsr.summaries.engines.base import Engine, Request, Sampling

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "attempt": pa.int64(),
        "prompt": pa.string(),
        "temperature": pa.float64(),
        "seed": pa.int64(),
        "engine": pa.string(),
    }
)


class OfflineEngine(Engine):
    """Answers no request itself, but writes all requests to `path` at the end of the run, if it succeeds."""

    questions: Path
    batch = 1024

    def __init__(self, model: str, revision: str | None, sampling: Sampling, path: Path) -> None:
        if sampling.extra:
            raise UsageError("--extra-body is for servers; vllm:MODEL takes none.")
        if penalties := sampling.penalties():
            raise UsageError(
                f"--{min(penalties).replace('_', '-')} is for models in this process; vllm:MODEL takes none."
            )
        self.identity = {"engine": "vllm", "model": model, "revision": revision, "sampling": sampling.to_dict()}
        self.sampling = sampling
        self.questions = path
        self.offline_instructions = (
            f"The questions are in {path}. Answer them with hub_recipes/jobs/vllm_summarize.py, and run the same command "
            "again with --cache and what it wrote."
        )
        if path.exists() and (not path.is_file() or not _holds_questions(path)):
            raise UsageError(f"{path} exists and holds no questions of ours. Choose another --questions.")
        self._writer: pq.ParquetWriter | None = None
        self._draft = path.with_name(f".{path.name}.{os.getpid()}.part")

    async def answers(self, requests: Sequence[Request]) -> list[Answer | None]:
        if self._writer is None:
            self._draft.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._draft, SCHEMA, compression="zstd")
        about = json.dumps(self.identity, sort_keys=True)
        rows = [
            (request.key, request.attempt, request.text, *self.sampling.of(request.attempt), about)
            for request in requests
        ]
        columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), SCHEMA.types, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
        return [None] * len(requests)

    async def close(self, succeeded: bool) -> None:
        has_questions = self._writer is not None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if succeeded and has_questions:
            self._draft.replace(self.questions)
        elif succeeded:
            self.questions.unlink(missing_ok=True)  # all questions of an earlier run are answered
        self._draft.unlink(missing_ok=True)


def _holds_questions(path: Path) -> bool:
    try:
        return pq.read_schema(path).names == SCHEMA.names
    except pa.ArrowException:
        return False
