"""Every way of loading or serving a release, asked the requests of its `expected.json`: how far log-odds are from those.

    python -m bench.loading RELEASE --llama-server PATH --out loading.json

RELEASE is a folder as `trsr publish --out` writes it; of its copies, those that it holds are tried. Each way runs in a process of
its own, by a Python that finds the libraries, but not this package.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import report
from bench.run import processor, write
from bench.serving import free_port, llama_server, llama_server_version, serving
from trsr import __version__
from trsr.cli.exits import exit_codes_for_errors
from trsr.core.modeling import ADAPTER_FILE, PROMPT_FILE
from trsr.core.prompts import RankingPrompt
from trsr.core.saving import write_json
from trsr.errors import UsageError
from trsr.hub import endpoints, verify
from trsr.hub.copy_rehearsal import answers, beside_its_base, gaps, questions_of
from trsr.hub.processes import environment_without_package
from trsr.records import versions
from trsr.records.files import read_json

METHOD = {
    "difference": "of log-odds from those in expected.json, which the release's own pipeline gave: the largest and the mean",
    "shift": "mean of the differences with their signs: what all candidates share moves P(yes), and no place",
    "same_order": "requests whose candidates are in the same order",
    "strangers": "each way in a process that cannot import this package",
}
# llama.cpp keeps keys and values in half precision by default.
_EXACT = ["-ctk", "f32", "-ctv", "f32", "-fa", "off"]

_SHOW = """
import importlib.util, json, sys
print(json.dumps(None if importlib.util.find_spec("trsr") else versions(*sys.argv[1:])))
"""

LogOdds = Sequence[Sequence[float]]  # of the candidates of each request


@dataclass(frozen=True, slots=True)
class Way:
    """A way to load or to serve a recommender.

    Attributes:
        name: What a user writes.
        loads: Folder of the release, or name of its GGUF file.
        weights: Their precision.
        run: Loads or serves it, and returns its log-odds of the requests in `expected.json`.
    """

    name: str
    loads: str
    weights: str
    run: Callable[[], LogOdds]


def ways(release: Path, known: Mapping[str, Any], work: Path, python: str | Path, server: str | None) -> Iterator[Way]:
    """All ways that the release allows.

    Args:
        known: Its `expected.json`.
        work: Folder for temporary files.
        python: Of an environment without this package.
        server: Path of llama.cpp's server; without it, GGUF files are read by transformers alone.
    """
    prompt = RankingPrompt.from_dict(read_json(release / "adapter" / PROMPT_FILE))
    questions = work / "questions.json"
    write_json(questions, questions_of(dict(known), prompt))
    base = release / "base"
    named = str(base) if base.is_dir() else read_json(release / "adapter" / ADAPTER_FILE)["base_model_name_or_path"]
    dtype = known["made_from"]["dtype"]

    def fresh(kind: str, source: Path) -> Callable[[], LogOdds]:
        return partial(answers, kind, source, questions, source.name, python)

    def served(source: Path) -> Callable[[], LogOdds]:
        return partial(_of_transformers, source, known, work, python)

    whole = release / "pipeline"
    yield Way('pipeline("text-rich-recommendation")', "pipeline", dtype, fresh("pipeline", whole))
    yield Way("transformers serve: /v1/systemone", "pipeline", dtype, served(whole))
    adapter = beside_its_base(release / "adapter", work / "adapter", named)
    yield Way("AutoPeftModelForCausalLM", "adapter", dtype, fresh("adapter", adapter))
    yield Way('pipeline("decision")', "adapter", dtype, fresh("decision", adapter))
    if (release / "cross-encoder").is_dir():
        encoder = beside_its_base(release / "cross-encoder", work / "cross-encoder", named)
        yield Way("sentence_transformers.CrossEncoder", "cross-encoder", dtype, fresh("cross-encoder", encoder))
    if (merged := release / "merged").is_dir():
        yield Way("AutoModelForCausalLM", "merged", dtype, fresh("merged", merged))
        yield Way('pipeline("decision")', "merged", dtype, fresh("decision", merged))
        yield Way("transformers serve: /v1/systemone", "merged", dtype, served(merged))
    for file in sorted((release / "gguf").glob("*.gguf")):
        kind = file.stem.rpartition("-")[2]
        yield Way("AutoModelForCausalLM(gguf_file=...)", file.name, kind, fresh("gguf", file))
        if server:
            flags = _EXACT if kind == "f32" else []
            name = f"{' '.join(['llama-server', *flags])}: /completion"
            yield Way(name, file.name, kind, partial(_of_llama, server, file, flags, known, work))


def run(
    release: Path,
    out: Path,
    python: str | Path = sys.executable,
    server: str | None = None,
    only: str = "",
    add: bool = False,
) -> dict[str, Any]:
    """Try the ways whose name or folder holds `only`, and write the results file after each.

    Args:
        release: Folder, as `trsr publish --out` writes it. Its code is executed.
        out: Results file.
        python: Of an environment with the libraries, but without this package.
        server: Path of llama.cpp's server.
        add: Keep the ways that `out` holds, and do not try them again.

    Raises:
        ReleaseError, HubError, UsageError: If one cannot be loaded, or does not answer; if `python` can import this package.
    """
    libraries = _libraries_of(python)
    release = release.resolve()
    wanted = verify.read(str(release))
    results: dict[str, Any] = {
        "bench": "loading",
        "base": wanted["made_from"]["base"],
        "weights": wanted["made_from"]["weights"],
        "requests": len(wanted["requests"]),
        "candidates": sum(len(request["log_odds"]) for request in wanted["requests"]),
        "spread": round(statistics.stdev(odds for request in wanted["requests"] for odds in request["log_odds"]), 2),
        "method": METHOD,
        "processor": processor(),
        "versions": {"llm-trsr": __version__, **libraries},
    }
    if server:
        results["versions"]["llama-server"] = llama_server_version(server)
    tried = _kept(out, results) if add and out.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        all_ways = list(ways(release, wanted, Path(temporary), python, server))
        for way in all_ways:
            if (way.name, way.loads) not in tried and (only in way.name or only in way.loads):
                print(f"{way.name}, {way.loads}", flush=True)
                tried[way.name, way.loads] = _compared(way, wanted)
            results["ways"] = [
                tried[other.name, other.loads] for other in all_ways if (other.name, other.loads) in tried
            ]
            write(out, results)
    return results


def _compared(way: Way, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """How far a way is from what is known."""
    log_odds = way.run()
    off = gaps(log_odds, wanted)
    sizes = [abs(gap) for gap in off]
    orders = [
        _order(some) == _order(request["log_odds"]) for some, request in zip(log_odds, wanted["requests"], strict=True)
    ]
    return {
        "way": way.name,
        "loads": way.loads,
        "weights": way.weights,
        "difference": {"max": float(f"{max(sizes):.2g}"), "mean": float(f"{statistics.mean(sizes):.2g}")},
        "shift": float(f"{statistics.mean(off):.2g}"),
        "same_order": sum(orders),
    }


def _kept(out: Path, results: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The ways that `out` holds already."""
    before = read_json(out)
    if changed := [
        name for name in ("weights", "method", "processor", "versions") if before.get(name) != results[name]
    ]:
        raise UsageError(
            f"{out} was measured otherwise ({', '.join(changed)}): choose another --out, or leave --add out."
        )
    return {(row["way"], row["loads"]): row for row in before["ways"]}


def _order(log_odds: Sequence[float]) -> list[int]:
    return sorted(range(len(log_odds)), key=lambda number: -log_odds[number])


def _libraries_of(python: str | Path) -> dict[str, str]:
    """Versions of the libraries that a Python finds; raises UsageError if it finds this package."""
    code = Path(versions.__file__).read_text(encoding="utf-8") + _SHOW
    words = [python, "-c", code, "sentence-transformers", "gguf"]
    done = subprocess.run(words, env=environment_without_package(), cwd="/", capture_output=True, text=True, check=True)
    libraries = json.loads(done.stdout)
    if libraries is None:
        raise UsageError(
            f"{python} has this package installed, so nothing would be proven. Say which Python has the libraries alone: --python PATH"
        )
    return libraries


def _of_transformers(source: Path, wanted: Mapping[str, Any], work: Path, python: str | Path) -> LogOdds:
    port = free_port()
    words: list[object] = [python, "-m", "transformers.cli.transformers", "serve", source, "--trust-remote-code"]
    words += ["--device", "cpu", "--dtype", wanted["made_from"]["dtype"], "--host", "127.0.0.1", "--port", port]
    environment = {**environment_without_package(), "HF_MODULES_CACHE": str(work / "modules")}
    with serving(words, port, work / "log", env=environment, cwd=work):
        return _asked("systemone", f"http://127.0.0.1:{port}", str(source), wanted)


def _of_llama(server: str, file: Path, flags: Sequence[str], wanted: Mapping[str, Any], work: Path) -> LogOdds:
    with llama_server(server, file, work / "log", *flags) as (url, _):
        return _asked("completion", url, file.name, wanted)


def _asked(api: str, url: str, model: str, wanted: Mapping[str, Any]) -> LogOdds:
    return [reply.log_odds for reply in endpoints.ask(api, url, model, wanted)]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("release", type=Path, help="folder, as `trsr publish --out` writes it; its code is executed")
    add(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="that has the libraries, but not this package (this one)",
    )
    add("--llama-server", metavar="PATH", help="llama.cpp's server, for GGUF files")
    add("--only", default="", metavar="TEXT", help="the ways alone whose name or folder holds it")
    add("--add", dest="keep", action="store_true", help="keep the ways that --out holds, and do not try them again")
    add("--out", type=Path, default=Path("loading.json"), help="results file (%(default)s)")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(words)
    with exit_codes_for_errors():
        results = run(options.release, options.out, options.python, options.llama_server, options.only, options.keep)
        print(f"{report.table(results)}\n\nWrote {options.out}")


if __name__ == "__main__":
    main()
