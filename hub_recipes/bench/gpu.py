"""A model on a GPU: exactness and speed of the plans that share a prefix, beside separate prompts, vLLM and SGLang.

    python -m bench.gpu folder-or-hub-id --out bench-gpu.json

Scoring and training steps in bf16, and scoring in fp32, where a fault shows that bf16 would hide. It ends by itself within
`--limit` seconds, eight minutes: what is finished by then is in the results file, which names the rest with the reason. An
engine that is not installed is named likewise. `--device cpu` tries the script where there is no GPU.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bench import precision, report, score, train, workloads
from bench.measure import steady
from bench.run import processor, write
from trsr.cli.exits import exit_codes_for_errors
from trsr.core.exactness import NOISE_FACTOR, Fp32
from trsr.core.prompts import Encoder
from trsr.errors import UsageError
from trsr.records.versions import versions

LIMIT = 480  # seconds
LONG = 3  # times the prefix, in the sections with long prompts
ENGINES = ("vllm", "sglang")
FP32_ALLOWED = 1e-3  # of log-odds in fp32, on average, and of the norm of a gradient
METHOD = {
    "seconds": "of a user (scoring, engines) or of a step on all users (training), median of the rounds: the clock's, once the "
    "GPU is done; on a CPU time.process_time, one thread",
    "peak_mib": "torch's allocator while a way runs, above what was held before",
    "from_fp32": "off what separate prompts give in fp32 from the same weights: log-odds, or the gradient relative to its norm",
    "engines": "all prompts of all users at once, each prefix new to the cache; log-odds of the first token",
}


class OutOfTime(BaseException):
    """The limit is reached. Not an `Exception`: nobody between here and `run` may take it for a fault of a model."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the results.

    Attributes:
        dtype: A key of `precision.DTYPES`, in which `measure` wants the model.
        measure: Function of (model, encoder), which leaves the model as it was.
    """

    name: str
    dtype: str
    measure: Callable[[Any, Encoder], dict[str, Any]]


def run(options: Namespace) -> dict[str, Any]:
    """Measure section after section, and write `options.out` after each.

    Raises:
        UsageError: If there is no such device, or a plan is not exact; in the latter case the file is written.
    """
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("No CUDA device here. --device cpu tries the script without one.")
    work = sections(options)
    left_out = {engine: why for engine in ENGINES if (why := _not_to_be_asked(engine, options.model))}
    left_out |= {section.name: f"no time left of {options.limit:g} s" for section in work}
    results: dict[str, Any] = {
        "bench": "gpu",
        **{name: getattr(options, name) for name in ("users", "candidates", "negatives", "seed", "rounds", "limit")},
        "device": describe(device),
        "versions": versions(),
        "method": METHOD,
        "sections": {},
        "left_out": left_out,
    }
    with steady(), suppress(OutOfTime), limited(options.limit):
        model, dtype = None, ""
        for section in work:
            if section.dtype != dtype:
                model, dtype = None, section.dtype  # the one before is let go of first
                model, tokenizer = workloads.load(options.model, options.seed, precision.DTYPES[dtype])
                model, encoder = model.to(device), Encoder(tokenizer)
                results["model"] = workloads.describe(_short(options.model), model) | {"dtype": list(precision.DTYPES)}
            print(section.name, flush=True)
            began = time.monotonic()
            try:
                measured = section.measure(model, encoder)
                results["sections"][section.name] = measured | {"took": round(time.monotonic() - began, 1)}
                del left_out[section.name]
            except Exception as error:  # time on a GPU is dear: the other sections are measured, whatever it was
                left_out[section.name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            write(options.out, results)
    write(options.out, results)
    if faults := wrong(results):
        raise UsageError(f"Not exact: {'; '.join(faults)}. The figures are in {options.out}.")
    return results


def sections(options: Namespace) -> list[Section]:
    """What is measured, in this order."""

    def users(encoder: Encoder, prefix: int, count: int, seed: int = 0) -> list[workloads.Prompts]:
        return [workloads.prompts(encoder, prefix, count, options.seed + seed + user) for user in range(options.users)]

    def scored(dtype: str, prefix: int) -> Section:
        def measure(model, encoder: Encoder) -> dict[str, Any]:
            return precision.scoring(model, encoder, users(encoder, prefix, options.candidates), options.rounds)

        return Section(f"score, {dtype}, {prefix} x {options.candidates}", dtype, measure)

    def trained(prefix: int) -> Section:
        def measure(model, encoder: Encoder) -> dict[str, Any]:
            adapted = train.prepare(model, options.seed)
            try:
                return precision.training(
                    adapted, encoder, users(encoder, prefix, 1 + options.negatives), options.rounds
                )
            finally:
                adapted.unload().eval()

        return Section(f"train, bf16, {prefix} x {options.negatives}", "bf16", measure)

    def served(engine: str) -> Section:
        def measure(model, encoder: Encoder) -> dict[str, Any]:
            warm, timed = (users(encoder, options.prefix, options.candidates, seed) for seed in (10_000, 0))
            return beside(engine, options.model, model, encoder, warm, timed)

        return Section(f"{engine}, bf16, {options.prefix} x {options.candidates}", "bf16", measure)

    short, long = options.prefix, LONG * options.prefix
    ours = [scored("fp32", short), scored("bf16", short), trained(short), scored("bf16", long), trained(long)]
    return ours + [served(engine) for engine in ENGINES if not _not_to_be_asked(engine, options.model)]


def _not_to_be_asked(engine: str, model: str) -> str:
    if importlib.util.find_spec(engine) is None:
        return f"{engine} is not installed"
    return "it loads no random weights" if model in workloads.CONFIGS else ""


@torch.no_grad()
def beside(
    engine: str,
    name: str,
    model,
    encoder: Encoder,
    warm: Sequence[workloads.Prompts],
    timed: Sequence[workloads.Prompts],
) -> dict[str, Any]:
    """What an engine needs for the users `timed` after the users `warm`, and how far its log-odds are from those in fp32.

    It runs in a process group of its own, which ends with this call.

    Args:
        name: Folder or Hub id of `model`, which the engine loads.
    """
    with Fp32():
        truth = torch.cat([score.one_by_one(model, encoder, user) for user in timed]).cpu()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    parts = [[user.prefix + suffix for user in part for suffix in user.suffixes] for part in (warm, timed)]
    with tempfile.TemporaryDirectory() as folder:
        questions, answered, log = (Path(folder, name) for name in ("asked.json", "answered.json", "log"))
        questions.write_text(json.dumps({"model": name, "parts": parts, "yes": encoder.yes_id, "no": encoder.no_id}))
        code = f"from bench.gpu import answer; answer({engine!r}, {str(questions)!r}, {str(answered)!r})"
        with log.open("wb") as into:
            child = subprocess.Popen([sys.executable, "-c", code], stdout=into, stderr=into, start_new_session=True)
            try:
                child.wait()
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if child.returncode:
            raise RuntimeError(log.read_text(errors="replace").strip()[-250:])
        result = json.loads(answered.read_text())
    return {
        "version": version(engine),
        "start": round(result["start"], 1),
        "seconds": float(f"{result['seconds'] / len(timed):.3g}"),
        "from_fp32": precision.of_scores(torch.tensor(result["log_odds"]), truth),
    }


def answer(engine: str, asked: str, answered: str) -> None:
    """Let an engine answer the rows in a file: one part to warm it up, then the other against the clock."""
    question = json.loads(Path(asked).read_text())
    warm, timed = question["parts"]
    began = time.monotonic()
    ask = {"vllm": _vllm, "sglang": _sglang}[engine](**question)
    ask(warm)
    started = time.monotonic()
    log_odds = ask(timed)
    result = {"log_odds": log_odds, "seconds": time.monotonic() - started, "start": started - began}
    Path(answered).write_text(json.dumps(result))


Ask = Callable[[Sequence[list[int]]], list[float]]


def _vllm(model: str, parts: Sequence[Sequence[list[int]]], yes: int, no: int) -> Ask:
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=model,
        dtype="bfloat16",
        enable_prefix_caching=True,
        # Of what is left when all but the two answers are ruled out: their difference is still that of the logits.
        logprobs_mode="processed_logprobs",
        gpu_memory_utilization=0.5,
        max_model_len=max(len(row) for part in parts for row in part) + 16,
    )
    first = SamplingParams(max_tokens=1, temperature=0, logprobs=2, allowed_token_ids=[yes, no])

    def ask(rows: Sequence[list[int]]) -> list[float]:
        outputs = llm.generate([{"prompt_token_ids": row} for row in rows], first, use_tqdm=False)
        chances = [output.outputs[0].logprobs[0] for output in outputs]
        return [chance[yes].logprob - chance[no].logprob for chance in chances]

    return ask


def _sglang(model: str, parts: Sequence[Sequence[list[int]]], yes: int, no: int) -> Ask:
    import sglang

    engine = sglang.Engine(model_path=model, dtype="bfloat16", mem_fraction_static=0.5, log_level="error")
    first = {"max_new_tokens": 1, "temperature": 0}

    def ask(rows: Sequence[list[int]]) -> list[float]:
        wanted = [[yes, no] for _ in rows]
        outputs = engine.generate(
            input_ids=list(rows), sampling_params=first, return_logprob=True, token_ids_logprob=wanted
        )
        # (logprob, token, text) each
        chances = [output["meta_info"]["output_token_ids_logprobs"][0] for output in outputs]
        by_token = [{token: logprob for logprob, token, *_ in chance} for chance in chances]
        return [chance[yes] - chance[no] for chance in by_token]

    return ask


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTime after so many seconds, and again every five: something may have swallowed it."""

    def stop(*_) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def describe(device: torch.device) -> dict[str, Any]:
    """What the model runs on."""
    if device.type != "cuda":
        return {"type": device.type, "name": processor()}
    facts = torch.cuda.get_device_properties(device)
    memory = round(facts.total_memory / 2**30, 1)
    return {"type": "cuda", "name": facts.name, "memory_gib": memory, "cuda": torch.version.cuda}


def wrong(results: dict[str, Any]) -> list[str]:
    """The plans that were chosen, and are farther off than rounding explains."""
    faults = []
    for name, section in results["sections"].items():
        if "chosen" not in section:
            continue
        off, noise = (section["ways"][plan]["from_fp32"] for plan in (section["chosen"], "separate"))
        key = "norm" if "norm" in off else "mean"
        if not off[key] <= max(FP32_ALLOWED, NOISE_FACTOR * noise[key]):  # a NaN is not exact
            faults.append(f"{section['chosen']} is off by {off[key]} in {name!r}")
    return faults


def _short(model: str) -> str:
    return Path(model).name if Path(model).is_dir() else model


def arguments() -> ArgumentParser:
    """The command line: that of `bench.precision`, and more."""
    parser = precision.arguments()
    parser.description = __doc__
    parser.set_defaults(prefix=500, users=4, out=Path("bench-gpu.json"))
    parser.add_argument("--rounds", type=int, default=3, help="that every way is measured in (%(default)s)")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS", help="of all of it (%(default)s)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to try the script (%(default)s)")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(words)
    with exit_codes_for_errors():
        results = run(options)
        print(f"\n{report.table(results)}\n")
        for name, why in results["left_out"].items():
            print(f"left out: {name}: {why}")
        print(f"Wrote {options.out}")


if __name__ == "__main__":
    main()
