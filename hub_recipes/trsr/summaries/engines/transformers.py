"""Summaries by a transformers model in this process: length-sorted batches, its chat template when it has one.

A model in a folder is known by its content, see `weights`.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from trsr.core.answer import Answer
from trsr.core.compat import context_length
from trsr.core.decoding import SamplingState
from trsr.core.generation import ModelSummarizer
from trsr.core.modeling import SUMMARIZER, load_adapter
from trsr.core.prompts import TEMPLATE_DATE, Encoder
from trsr.errors import UsageError
from trsr.progress import loading
from trsr.records.checksums import digest
from trsr.summaries.engines.base import Engine, Request, Sampling


class TransformersEngine(Engine):
    """Loads `model` (Hub id or folder) onto the accelerator, if there is one, when it is first asked.

    Args:
        adapter: Folder of a PEFT adapter on `model` that summarises.
    """

    # What a killed run loses. About a batch of a model with a few hundred tokens a prompt.
    batch = 16
    in_process = True

    def __init__(self, model: str, revision: str | None, sampling: Sampling, adapter: Path | None = None) -> None:
        self.sampling = sampling
        if sampling.extra:
            raise UsageError("--extra-body is for servers; transformers:MODEL takes none.")
        with loading(model):
            config = AutoConfig.from_pretrained(model, revision=revision)
        if adapter and not (adapter / "adapter_config.json").is_file():
            raise UsageError(f"{adapter} holds no adapter. Train one: trsr train-summarizer RUN --out {adapter}")
        self._model, self._adapter = model, adapter
        self._revision = getattr(config, "_commit_hash", None) or revision
        folder = Path(model).resolve()
        self.identity = {
            "engine": "transformers",
            "model": folder.name if folder.is_dir() else model,
            "revision": digest(folder, *([adapter] if adapter else [])) if folder.is_dir() else self._revision,
            "sampling": sampling.to_dict(),
            "template_date": TEMPLATE_DATE,  # for chat templates that name the day
            **({"adapter": {"name": adapter.resolve().name, "revision": digest(adapter)}} if adapter else {}),
        }

    def reseeded(self, seed: int) -> "TransformersEngine":
        """The same engine with other draws. It shares the model, if that is loaded."""
        other = copy.copy(self)
        other.sampling = replace(self.sampling, seed=seed)
        other.identity = {**self.identity, "sampling": other.sampling.to_dict()}
        return other

    async def answers(self, requests: Sequence[Request]) -> list[Answer | None]:
        answers: dict[int, Answer] = {}
        for kind in ("block", "merge", "update"):
            indices = [index for index, request in enumerate(requests) if request.question.kind == kind]
            if indices:
                texts = [requests[index].text for index in indices]
                draws = [self._draw(requests[index]) for index in indices]
                answers |= zip(indices, self._summarizer.answers(kind, texts, draws), strict=True)
        return [answers[index] for index in range(len(requests))]

    def _draw(self, request: Request) -> SamplingState | None:
        temperature, seed = self.sampling.of(request.attempt)
        if not temperature:
            return None
        return SamplingState(temperature, int.from_bytes(hashlib.sha256(f"{request.key} {seed}".encode()).digest()[:8]))

    @cached_property
    def _summarizer(self) -> ModelSummarizer:
        penalties: dict[str, Any] = self.sampling.penalties()
        return ModelSummarizer(*self._loaded, self.prompts, self.sampling.max_new_tokens, **penalties)

    @cached_property
    def _loaded(self) -> tuple[Any, Encoder]:
        device = torch.accelerator.current_accelerator() or torch.device("cpu")
        with loading(self._model):
            tokenizer = AutoTokenizer.from_pretrained(self._model, revision=self._revision)
            network: Any = AutoModelForCausalLM.from_pretrained(self._model, revision=self._revision, dtype="auto")
            if self._adapter:
                load_adapter(network, SUMMARIZER, str(self._adapter), {})
        context = context_length(network.config)
        return network.to(device).eval(), Encoder(tokenizer, context=context)
