"""Summaries by a transformers model in this process: length-sorted batches, its chat template when it has one.

A model in a folder is known by its content, see `weights`.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from trsr.core.answer import Answer
from trsr.core.generation import ModelSummarizer
from trsr.core.modeling import SUMMARIZER, load_adapter
from trsr.core.prompts import TEMPLATE_DATE, Encoder
from trsr.errors import UsageError
from trsr.records.checksums import digest
from trsr.summaries.engines.base import Engine, Request, Sampling


class TransformersEngine(Engine):
    """Loads `model` (Hub id or folder) onto the accelerator, if there is one, when it is first asked.

    Args:
        adapter: Folder of a PEFT adapter that summarises; `model` is a folder then.
    """

    def __init__(self, model: str, revision: str | None, sampling: Sampling, adapter: Path | None = None) -> None:
        self.sampling = sampling
        if sampling.extra:
            raise UsageError("--extra-body is for servers; transformers:MODEL takes none.")
        config = AutoConfig.from_pretrained(model, revision=revision)
        self._model, self._adapter = model, adapter
        self._revision = getattr(config, "_commit_hash", None) or revision
        folder = Path(model).resolve()
        self.identity = {
            "engine": "transformers",
            "model": folder.name if folder.is_dir() else model,
            "revision": digest(folder, *([adapter] if adapter else [])) if folder.is_dir() else self._revision,
            "sampling": sampling.to_dict(),
            "template_date": TEMPLATE_DATE,  # for chat templates that name the day
        }

    async def answers(self, requests: Sequence[Request]) -> list[Answer | None]:
        made: dict[int, Answer] = {}
        for kind in ("block", "merge", "update"):
            places = [n for n, one in enumerate(requests) if one.question.kind == kind and not self._drawn(one)]
            if places:
                texts = [requests[place].text for place in places]
                made |= zip(places, self._summarizer(0.0).answers(kind, texts), strict=True)
        for place, one in enumerate(requests):
            if self._drawn(one):
                temperature, seed = self.sampling.of(one.attempt)
                # One by one: what is drawn must not depend on which others happen to be asked with it.
                with torch.random.fork_rng():
                    torch.manual_seed(seed)
                    (made[place],) = self._summarizer(temperature).answers(one.question.kind, [one.text])
        return [made[place] for place in range(len(requests))]

    def _drawn(self, request: Request) -> bool:
        return self.sampling.of(request.attempt)[0] > 0

    def _summarizer(self, temperature: float) -> ModelSummarizer:
        if not temperature:
            return self._greedy
        return ModelSummarizer(
            *self._loaded, max_new_tokens=self.sampling.max_new_tokens, do_sample=True, temperature=temperature
        )

    @cached_property
    def _greedy(self) -> ModelSummarizer:
        return ModelSummarizer(*self._loaded, max_new_tokens=self.sampling.max_new_tokens)

    @cached_property
    def _loaded(self) -> tuple[Any, Encoder]:
        device = torch.accelerator.current_accelerator() or torch.device("cpu")
        tokenizer = AutoTokenizer.from_pretrained(self._model, revision=self._revision)
        network: Any = AutoModelForCausalLM.from_pretrained(self._model, revision=self._revision, dtype="auto")
        if self._adapter:
            load_adapter(network, SUMMARIZER, str(self._adapter), {})
        context = getattr(network.config.get_text_config(), "max_position_embeddings", 0) or 0
        return network.to(device).eval(), Encoder(tokenizer, context=context)
