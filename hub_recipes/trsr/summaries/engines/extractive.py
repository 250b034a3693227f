"""Summaries without a model, from counts of field values."""

from collections.abc import Sequence

from trsr.core.answer import Answer
from trsr.core.extractive import ExtractiveSummarizer
from trsr.core.summarize import run_requests
from trsr.summaries.engines.base import Engine, Request


class ExtractiveEngine(Engine):
    """Counts field values and recurring words. It is so cheap that answers are not stored."""

    cacheable = False
    in_process = True

    def __init__(self) -> None:
        self.identity = {"engine": "extractive"}

    async def answers(self, requests: Sequence[Request]) -> list[Answer | None]:
        texts = run_requests([request.question for request in requests], ExtractiveSummarizer())
        return [Answer(text) for text in texts]
