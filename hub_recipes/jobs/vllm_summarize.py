# /// script
# requires-python = ">=3.11"
# dependencies = ["vllm", "pyarrow"]
#
# [tool.hf-jobs]
# flavor = "a100-large"
# timeout = "6h"
# secrets = ["HF_TOKEN"]
# ///
"""Answer the open questions of `trsr summarize --engine vllm:MODEL` with vLLM, in an environment of its own.

    trsr summarize DATASET --out DIR --engine vllm:MODEL --questions questions/round.parquet
    hf jobs uv run --namespace ORG -v ./questions:/questions -v hf://buckets/ORG/trsr:/kept \\
        hub_recipes/jobs/vllm_summarize.py -- /questions/round.parquet --out /kept/generations

On a machine with a GPU: uv run hub_recipes/jobs/vllm_summarize.py questions/round.parquet --out generations. Then
`trsr summarize` again, with --cache and the folder of generations: it asks what follows from the answers, one round a
block, until nothing is open. Model, revision and sampling stand in the file of questions.

Answers are written a part at a time, and a job that was stopped goes on: what the folder holds is not asked again.
The package is not needed here, for vLLM pins other versions of transformers.

Reading, writing and resuming are tested with a stand-in for vLLM. vLLM itself needs a GPU, and this script has not been
run on one: what is taken from its documentation is LLM(...), LLM.chat(...) and the fields of its outputs.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

QUESTIONS = ("key", "attempt", "prompt", "temperature", "seed", "engine")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", type=Path, help="Parquet file that trsr summarize wrote")
    parser.add_argument("--out", type=Path, default=Path("generations"), help="folder to write (%(default)s)")
    parser.add_argument("--part", type=int, default=5000, help="answers a file (%(default)s)")
    parser.add_argument("--options", type=json.loads, default={}, help="JSON, more arguments of vllm.LLM")
    options = parser.parse_args(arguments)
    rows = read(options.questions)
    known = set(answered(options.out))
    rows = [row for row in rows if (row["key"], row["attempt"]) not in known]
    print(f"{len(rows)} questions, {len(known)} attempts answered before")
    if not rows:
        return
    from vllm import LLM

    about = json.loads(rows[0]["engine"])
    model = LLM(model=about["model"], revision=about["revision"], enable_prefix_caching=True, **options.options)
    options.out.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(rows), options.part):
        write(options.out, answers(model, rows[start : start + options.part], about["sampling"]["max_new_tokens"]))


def read(path: Path) -> list[dict]:
    """The questions, all for one engine."""
    table = pq.read_table(path)
    missing = [name for name in QUESTIONS if name not in table.column_names]
    if missing:
        raise SystemExit(
            f"error: {path} lacks the columns {', '.join(missing)}. Write it with: trsr summarize --questions"
        )
    if len(set(table["engine"].to_pylist())) > 1:
        raise SystemExit(f"error: {path} has questions for several engines. Write one file an engine.")
    return table.to_pylist()


def answered(folder: Path) -> Iterator[tuple[str, int]]:
    """Key and attempt of the answers that a folder holds."""
    for path in sorted(folder.glob("part-*.parquet")):
        table = pq.read_table(path, columns=["key", "attempt"])
        yield from zip(table["key"].to_pylist(), table["attempt"].to_pylist(), strict=True)


def answers(model, rows: Sequence[dict], max_tokens: int) -> list[dict]:
    """Ask for one part, in one call: vLLM makes the batches."""
    from vllm import SamplingParams

    made = model.chat(
        [[{"role": "user", "content": row["prompt"]}] for row in rows],
        [SamplingParams(temperature=row["temperature"], seed=row["seed"], max_tokens=max_tokens) for row in rows],
        # Templates of Llama 3's kind name the day: the one that `--engine transformers:MODEL` gives them.
        chat_template_kwargs={"enable_thinking": False, "date_string": "26 Jul 2024"},
    )
    return [
        {
            "key": row["key"],
            "attempt": row["attempt"],
            "text": one.outputs[0].text,
            "finish_reason": one.outputs[0].finish_reason or "",
            "prompt_tokens": len(one.prompt_token_ids),
            "completion_tokens": len(one.outputs[0].token_ids),
            "engine": row["engine"],
        }
        for row, one in zip(rows, made, strict=True)
    ]


def write(folder: Path, made: list[dict]) -> None:
    """Add a file, whole or not at all; its name is a checksum of what it answers, so that it takes no other's place."""
    keys = json.dumps([(row["key"], row["attempt"]) for row in made])
    path = folder / f"part-{hashlib.sha256(keys.encode()).hexdigest()[:16]}.parquet"
    draft = path.with_suffix(".draft")
    pq.write_table(pa.Table.from_pylist(made), draft, compression="zstd")
    draft.rename(path)


if __name__ == "__main__":
    main()
