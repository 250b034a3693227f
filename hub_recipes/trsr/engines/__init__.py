"""LLM backends behind the Summarizer protocol, one module each, chosen by name: `extractive`, `transformers:MODEL`."""

from dataclasses import dataclass

from trsr.core.summarize import Summarizer


@dataclass(frozen=True, slots=True)
class Engine:
    """A summarizer and what its answers depend on.

    Attributes:
        identity: Engine, model, revision, prompts and sampling; keys the store and stands in the provenance.
        generates: Whether an answer costs enough to be kept in the store.
    """

    summarizer: Summarizer
    identity: dict[str, object]
    generates: bool


def engine(name: str, revision: str | None = None, max_new_tokens: int = 160) -> Engine:
    """Make the engine called `name`.

    Raises:
        ValueError: If there is no such engine.
    """
    kind, _, model = name.partition(":")
    if kind == "extractive" and not model:
        from trsr.core.extractive import ExtractiveSummarizer

        return Engine(ExtractiveSummarizer(), {"engine": "extractive"}, generates=False)
    if kind == "transformers" and model:
        from trsr.engines import transformers as backend

        return backend.engine(model, revision, max_new_tokens)
    raise ValueError(f"Unknown engine {name!r}, expected extractive or transformers:MODEL.")
