"""Engines by name: `extractive`, `nano`, `transformers:MODEL`, `openai:MODEL`, `vllm:MODEL`."""

from pathlib import Path

from trsr.core.summary_prompts import SETS
from trsr.errors import UsageError
from trsr.summaries.engines.base import Engine, Sampling, Server


def engine(
    name: str,
    revision: str | None = None,
    sampling: Sampling | None = None,
    server: Server | None = None,
    questions: Path | None = None,
    prompts: str = "default",
    adapter: Path | None = None,
) -> Engine:
    """Make the engine called `name`. Its model is loaded at the first request.

    Args:
        prompts: The set of prompts for its questions, of `summary_prompts.SETS`.
        questions: For `vllm:MODEL`: the Parquet file to which open questions are written.
        adapter: For `transformers:MODEL`: folder of an adapter that summarises.

    Raises:
        UsageError: If there is no such engine or set of prompts, or they do not go together.
    """
    if adapter and not name.startswith("transformers:"):
        raise UsageError(f"--adapter goes with --engine transformers:MODEL, the base of the adapter; got {name!r}.")
    if revision and name in ("extractive", "nano"):
        raise UsageError(f"The engine {name!r} comes with this package, in one revision: leave out --engine-revision.")
    if prompts not in SETS:
        raise UsageError(f"Unknown prompts {prompts!r}, expected {' or '.join(SETS)}.")
    new_engine = _engine(name, revision, sampling, server, questions, adapter)
    new_engine.prompts = SETS[prompts]
    if new_engine.prompts.examples and (kind := new_engine.identity["engine"]) in ("extractive", "nano", "vllm"):
        raise UsageError(f"The engine {kind!r} takes no examples before a question: leave out --prompts {prompts}.")
    return new_engine


def _engine(
    name: str,
    revision: str | None,
    sampling: Sampling | None,
    server: Server | None,
    questions: Path | None,
    adapter: Path | None,
) -> Engine:
    kind, _, model = name.partition(":")
    if kind == "extractive" and not model:
        from trsr.summaries.engines.extractive import ExtractiveEngine

        return ExtractiveEngine()
    if name == "nano":
        from trsr.summaries.engines.nano import NanoEngine

        return NanoEngine(sampling or Sampling())
    if kind == "transformers" and model:
        from trsr.summaries.engines.transformers import TransformersEngine

        return TransformersEngine(model, revision, sampling or Sampling(), adapter)
    if kind == "openai" and model:
        from trsr.summaries.engines.openai import OpenAIEngine

        return OpenAIEngine(model, revision, sampling or Sampling(), server or Server())
    if kind == "vllm" and model:
        from trsr.summaries.engines.vllm import OfflineEngine

        return OfflineEngine(model, revision, sampling or Sampling(), questions or Path("questions.parquet"))
    raise UsageError(
        f"Unknown engine {name!r}, expected extractive, nano, transformers:MODEL, openai:MODEL or vllm:MODEL."
    )
