"""`pipeline("text-rich-recommendation")`: history and candidates in, ranking out; the whole of LLM-TRSR in one model."""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.utils import logging

from .catalogue import Catalogue, Query, check_stage_one, is_id_alone
from .compat import context_length, using_adapter, without_peft
from .errors import InputError, InputTypeError
from .extractive import ExtractiveSummarizer
from .forward import exclusive
from .generation import ModelSummarizer
from .history import Block, Item, blocks_by_count
from .modeling import SUMMARIZER
from .prompts import Encoder, RankingPrompt
from .saving import save_recommender
from .scoring import Scorer, probability
from .scoring import rank as order_by_score
from .summarize import METHODS, Summarizer, SummaryResult, summarize
from .summary_prompts import SummaryPrompts

logger = logging.get_logger(__name__)

SUMMARIZERS = ("auto", "adapter", "base-model", "extractive", None)
_REQUEST = frozenset({"history", "candidates", "summary", "exclude", "where"})
# What chooses from a catalogue, and has nothing to choose from where candidates are given.
_RETRIEVAL = ("exclude", "where", "stage_one", "rank")


class TextRichRecommendationPipeline(Pipeline):
    """Ranks candidates for a user by the log-odds that the model answers yes.

    A request is `{"history": [...], "candidates": [...], "summary": optional}`; an item is a string or a dict of fields,
    the history is oldest first. Without a summary the history is summarised first: `summarizer="adapter"` uses the
    second adapter, if the repo holds one, `"base-model"` uses the base with all adapters off,
    `"extractive"` counts fields and needs no model, `None` ranks by recent items alone, and `"auto"` takes what the model
    was trained with, where that is available.

    The answer is `{"candidates": [{"index", "item", "score", "log_odds", "rank"}, ...]}`, best first: `index` is the
    position in the input, `score` is P(yes) among yes and no, after the fitted temperature and bias, ranks count from 1, equal
    scores keep their input order.

    Without `candidates`, the catalogue that the repo carries is ranked, where it carries one: the first stage, a small
    model of the user over vectors of the items, takes the best `stage_one` of what is not in the history (default: as many
    as its weight was fitted with, else 100; or `top_k`, where that is more); the model ranks these; and both scores are
    added, each as z-scores over these items. The answer is `{"candidates": [{"item_id", "item", "score", "log_odds",
    "stage_one", "rank"}, ...], "not_in_catalogue": n, "not_excluded": m}`: `score` is the sum, and n counts the items of
    the history that the catalogue does not hold; the first stage skips them, and the model reads those that have a text. An
    item of the history is found by its `item_id`, else by its text. `exclude` lists ids or items to leave out; m counts
    those that were not found so. `where` is `{field: value}` that an item must have, or hold in a list; both may stand in a
    request too. `rank=False` is the first stage alone: `score` is its own, `log_odds` None.

    Wherever items are given, one that the catalogue holds may be `{"item_id": ...}` alone: its text is the catalogue's.
    With candidates, an id without text that the catalogue does not hold is a ValueError.

    Threads may share a pipeline, and take turns at its model. Lists of requests are answered in a list; Datasets and
    generators as they come. `batch_size` changes nothing: the candidates of a user are scored together already.

    Defined corners: an empty history ranks by the summary, or cold; no candidates give an empty list; duplicates are
    kept; a prompt longer than the context loses its oldest recent items, then the end of the summary, and the answer
    says so under `shortened`; a candidate that does not fit even so is a ValueError.

    Reference:
        LLM-TRSR (arXiv 2403.13325).
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        settings = getattr(self.model.config, "trsr", None) or {}
        prompt = RankingPrompt.from_dict(settings.get("ranking_prompt") or {})
        context = context_length(self.model.config)
        self.encoder = Encoder(self.tokenizer, prompt, context)
        self.scorer = Scorer(self.model, self.encoder.yes_id, self.encoder.no_id)
        self._temperature = float(settings.get("temperature") or 1.0)
        self._bias = float(settings.get("bias") or 0.0)
        self._trained_with = settings.get("summarizer")
        self._has_adapter = bool(settings.get("summarizer_adapter"))
        self._trained_method = settings.get("method") or "recurrent"
        # Defaults could cut other blocks than those that the repo was trained with.
        unstated = [key for key in ("block_size", "max_blocks") if settings.get("method") and not settings.get(key)]
        if unstated:
            raise InputError(f"config.json does not say {' and '.join(unstated)} under `trsr`. Publish the repo again.")
        self._summary_prompts = SummaryPrompts.from_dict(settings.get("summary_prompts") or {})
        self._summary_sampling = {"max_new_tokens": 160, **(settings.get("summary_sampling") or {})}
        self._block_size = settings.get("block_size") or 5
        self._max_blocks = settings.get("max_blocks") or 5

    def _sanitize_parameters(
        self,
        summarizer="unset",
        method=None,
        top_k="unset",
        return_summary=None,
        max_new_tokens=None,
        stage_one=None,
        exclude=None,
        where=None,
        rank=None,
        **unknown,
    ):
        if unknown:
            raise TypeError(
                f"Unknown option {', '.join(sorted(unknown))}. Options: summarizer, method, top_k, return_summary, "
                "max_new_tokens, and without candidates stage_one, exclude, where, rank."
            )
        forward_options, postprocess_options = {}, {}
        if stage_one is not None:
            stage_one = _positive("stage_one", stage_one)
        if rank is not None and not isinstance(rank, bool):
            raise InputError(f"rank must be True or False, got {rank!r}.")
        options = {"stage_one": stage_one, "exclude": exclude, "where": where, "rank": rank}
        preprocess_options = {name: value for name, value in options.items() if value is not None}
        if summarizer != "unset":
            forward_options["summarizer"] = _check_summarizer(summarizer)
        if method is not None:
            if method not in METHODS:
                raise InputError(f"Unknown method {method!r}, expected one of {', '.join(METHODS)}.")
            forward_options["method"] = method
        if max_new_tokens is not None:
            forward_options["max_new_tokens"] = _positive("max_new_tokens", max_new_tokens)
        if not isinstance(top_k, str) or top_k != "unset":
            if top_k is not None:
                top_k = _positive("top_k", top_k, " or None")
            preprocess_options["top_k"] = postprocess_options["top_k"] = top_k
        if return_summary is not None:
            postprocess_options["return_summary"] = return_summary
        return preprocess_options, forward_options, postprocess_options

    def __call__(self, inputs, **kwargs):
        """Rank the candidates of a request, or of each request of a list, Dataset or generator."""
        if isinstance(inputs, (list, tuple)):
            if not inputs:
                return []
            # All requests are checked before the first is scored, so that a faulty one costs no time.
            parameters = {name: value for name, value in kwargs.items() if name not in ("num_workers", "batch_size")}
            options = {**self._preprocess_params, **self._sanitize_parameters(**parameters)[0]}
            for number, request in enumerate(inputs):
                with _named_in_errors(f"requests[{number}]: "):
                    self.preprocess(request, **options)
            return super().__call__(list(inputs), **kwargs)
        if isinstance(inputs, Iterable) and not isinstance(inputs, (Mapping, str, Dataset)):
            inputs = (request for request in inputs)
        return super().__call__(inputs, **kwargs)

    def get_iterator(self, inputs, num_workers, batch_size, *params):
        # A batch is one user with all candidates: requests are not padded to one another.
        return super().get_iterator(inputs, num_workers, 1, *params)

    def rank(self, history: Sequence, candidates: Sequence, *, summary: str | None = None, **options) -> list[dict]:
        """Rank candidates for a user, as `CrossEncoder.rank` ranks documents for a query.

        Args:
            history: Items, oldest first: strings or dicts of fields.
            candidates: Items to rank.
            summary: Replaces the summary of the history, which is written by default.
            options: `top_k`, `summarizer`, `method` and `max_new_tokens`, as in a call.

        Returns:
            `{"index", "item", "score", "log_odds", "rank"}` for each candidate, best first.
        """
        return self({"history": history, "candidates": candidates, "summary": summary}, **options)["candidates"]

    def save_pretrained(self, save_directory, **kwargs) -> None:
        """Write a folder from which `pipeline("text-rich-recommendation", model=..., trust_remote_code=True)` loads it again.

        Args:
            kwargs: Ignored: options that transformers passes on, such as `max_shard_size`; weights are copied as they are.

        Raises:
            ValueError: See `saving.save_recommender`.
        """
        settings = {
            **(getattr(self.model.config, "trsr", None) or {}),
            "ranking_prompt": self.encoder.prompt.to_dict(),
            "temperature": self._temperature,
            "bias": self._bias,
            "block_size": self._block_size,
            "max_blocks": self._max_blocks,
        }
        save_recommender(Path(save_directory), self.model, self.tokenizer, settings)

    @cached_property
    def catalogue(self) -> Any:
        """The catalogue of the repo, read when it is first needed; None if it carries none."""
        origin = getattr(without_peft(self.model), "trsr_catalogue", None)
        return Catalogue.load(*origin) if origin else None

    def preprocess(self, request, **options):
        """Check a request and read its items."""
        if not isinstance(request, Mapping):
            raise InputTypeError(
                f"A request is a dict with 'history' and 'candidates', got {type(request).__name__}. "
                'For example {"history": ["title: Emma"], "candidates": ["title: Persuasion"]}.'
            )
        unknown = set(request) - _REQUEST
        missing = {"history", "candidates"} - set(request)
        if missing == {"candidates"} and not unknown and self.catalogue is not None:
            missing = set()
        if unknown or missing:
            hint = (
                " This recommender carries no catalogue to choose from: `trsr publish RUN --retriever RETRIEVER "
                "--namespace ORG` makes a repo that does."
            )
            raise InputError(
                f"A request has the keys history, candidates and optionally summary; unknown: {sorted(map(str, unknown))}, "
                f"missing: {sorted(missing)}.{hint if missing == {'candidates'} else ''}"
            )
        summary = request.get("summary")
        if summary is not None and not isinstance(summary, str):
            raise InputTypeError(f"A summary is a string, got {type(summary).__name__}.")
        if "candidates" not in request:
            history, query = self._query(request, **options)
            return {"history": history, "query": query, "rank": options.get("rank", True), "summary": summary}
        if used := [name for name in _RETRIEVAL if name in options or name in request]:
            raise InputError(f"{', '.join(used)}: for choosing from a catalogue. Leave out these, or the candidates.")
        return {
            "history": self._items(request["history"], "history"),
            "candidates": self._items(request["candidates"], "candidates"),
            "candidates_as_given": list(request["candidates"]),
            "summary": summary,
        }

    def _query(self, request, exclude=(), where=None, stage_one=0, rank=True, top_k=0) -> tuple[list[Item], Query]:
        """The history of a request without candidates, and what to retrieve for it."""
        catalogue = self.catalogue
        where = {**_fields(where), **_fields(request.get("where"))}
        history = _check_list(request["history"], "history")
        left_out = [*_check_list(request.get("exclude") or (), "exclude"), *_check_list(exclude, "exclude")]
        left_out = [catalogue.entry(value) for value in left_out]
        # An id that the catalogue does not hold, without a text: neither model can read it.
        items, excluded = (
            self._items(values, name, catalogue.lacks) for values, name in ((history, "history"), (left_out, "exclude"))
        )
        entries = [[entry for entry in values if not catalogue.lacks(entry)] for values in (history, left_out)]
        pairs = zip(entries[0], items, strict=True), zip(entries[1], excluded, strict=True)
        check_stage_one(stage_one, top_k)
        query = catalogue.query(*pairs, where, stage_one or max(catalogue.stage_one, top_k or 0))
        return items, replace(
            query,
            unknown=query.unknown + len(history) - len(items),
            not_excluded=query.not_excluded + len(left_out) - len(excluded),
        )

    def _items(self, values: Any, name: str, skipped: Callable[[object], bool] = lambda entry: False) -> list[Item]:
        """Read the items of a list that a request calls `name`, without those that are `skipped`.

        An item that is named by its id alone is read from the catalogue.
        """
        items = []
        for index, value in enumerate(_check_list(values, name)):
            try:
                if not skipped(value):
                    items.append(self.encoder.prompt.item(self._text_of(value)))
            except TypeError as error:
                raise InputTypeError(f"{name}[{index}]: {error}") from error
            except ValueError as error:
                raise InputError(f"{name}[{index}]: {error}") from error
        return items

    def _text_of(self, entry: Any) -> Any:
        # The catalogue is not read for what needs none.
        return self.catalogue.text_of(entry) if is_id_alone(entry) and self.catalogue is not None else entry

    def _forward(self, request, summarizer="auto", method=None, max_new_tokens=None):
        history, query = request["history"], request.get("query")
        answered = {**request, "retrieved": None, "summary_result": None, "scores": None, "shortened": None}
        candidates = request.get("candidates")
        if query is not None:
            [answered["retrieved"]] = self.catalogue.retrieve([query])
            if not request["rank"]:
                return answered
            candidates = [self.encoder.prompt.item(self.catalogue.texts[row]) for row, _ in answered["retrieved"]]
        if request["summary"] is not None:
            answered["summary_result"] = SummaryResult((), request["summary"])
        elif history and (name := self._resolve_summarizer(summarizer)):
            blocks = blocks_by_count(history, self._block_size, self._max_blocks)
            with self._summarizer(name, max_new_tokens) as writer:
                answered["summary_result"] = summarize([blocks], writer, method or self._trained_method)[0]
        summary_result = answered["summary_result"]
        suffixes = [self.encoder.suffix_ids(item) for item in candidates]
        answered["scores"] = []
        if suffixes:
            longest = max(range(len(suffixes)), key=lambda index: len(suffixes[index]))
            with _named_in_errors(f"candidates[{longest}], {candidates[longest].text[:40]!r}: "):
                prefix = self.encoder.prefix_ids(
                    summary_result.summary if summary_result else None, history, len(suffixes[longest])
                )
            if prefix.recent_dropped or prefix.summary_words_dropped:
                answered["shortened"] = {
                    "recent_items_dropped": prefix.recent_dropped,
                    "summary_words_dropped": prefix.summary_words_dropped,
                }
                logger.warning(
                    f"A prompt exceeded {self.encoder.limit} tokens and was shortened: {answered['shortened']}"
                )
            answered["scores"] = self.scorer.log_odds(prefix.ids, suffixes).tolist()
        return answered

    def postprocess(self, ranked, top_k=None, return_summary=False):
        scores = ranked["scores"]
        if ranked["retrieved"] is None:
            answer = {
                "candidates": [
                    {
                        "index": index,
                        "item": ranked["candidates_as_given"][index],
                        "score": probability(scores[index] / self._temperature + self._bias),
                        "log_odds": scores[index],
                        "rank": position,
                    }
                    for position, index in enumerate(order_by_score(scores)[:top_k], 1)
                ]
            }
        else:
            chosen = self.catalogue.ranked(ranked["retrieved"], scores)[:top_k]
            query = ranked["query"]
            answer = {"candidates": chosen, "not_in_catalogue": query.unknown, "not_excluded": query.not_excluded}
        if return_summary:
            summary_result = ranked["summary_result"]
            answer["summary"] = summary_result.summary if summary_result else None
            answer["block_summaries"] = list(summary_result.block_summaries) if summary_result else []
        if ranked["shortened"]:
            answer["shortened"] = ranked["shortened"]
        return answer

    def blocks(self, history: Sequence) -> list[Block]:
        """Cut a history, oldest first, into the blocks that are summarised: of a long history the newest blocks are kept."""
        return blocks_by_count(self._items(history, "history"), self._block_size, self._max_blocks)

    def update(
        self, summary: str, new_items: Sequence, summarizer: str = "auto", max_new_tokens: int | None = None
    ) -> str:
        """Advance a summary by one block of new items, oldest first. An empty summary starts from the block alone.

        Raises:
            ValueError: If there are no new items, or no summarizer.
        """
        _check_texts([summary or ""], "summary")
        block = tuple(self._items(new_items, "new_items"))
        if not block:
            raise InputError("There are no new items to update the summary with.")
        with self._summarizer(self._required_summarizer(summarizer), max_new_tokens) as writer:
            return (writer.update([(summary, block)]) if summary else writer.block([block]))[0]

    def merge(self, summaries: Sequence[str], summarizer: str = "auto", max_new_tokens: int | None = None) -> str:
        """Merge summaries of blocks, oldest first, into one.

        Raises:
            ValueError: If there are no summaries, or no summarizer.
        """
        if not _check_list(summaries, "summaries"):
            raise InputError("There are no summaries to merge.")
        _check_texts(summaries, "summaries")
        with self._summarizer(self._required_summarizer(summarizer), max_new_tokens) as writer:
            return writer.merge([list(summaries)])[0]

    def _required_summarizer(self, summarizer: str | None) -> str:
        name = self._resolve_summarizer(summarizer)
        if name is None:
            raise InputError(
                "Without a summarizer there is no summary: this recommender ranks by recent items alone, or None was "
                "asked for. Choose 'base-model' or 'extractive'."
            )
        return name

    def _resolve_summarizer(self, summarizer: str | None) -> str | None:
        """The summarizer to use: `auto` becomes the one that the model was trained with, or the nearest available."""
        _check_summarizer(summarizer)
        if summarizer == "adapter" and not self._has_adapter:
            raise InputError("This repo has no adapter that summarises. Choose 'base-model' or 'extractive'.")
        if summarizer != "auto":
            return summarizer
        if self._trained_with == "none":
            return None
        if self._trained_with and self._trained_with in SUMMARIZERS:
            return self._trained_with
        # The summarizer of training is not available. A base without a chat template follows no instructions.
        name = "adapter" if self._has_adapter else "base-model" if self.encoder.chat else "extractive"
        if self._trained_with:
            logger.warning_once(
                f"The summaries it was trained with are those of another model ({self._trained_with}); the summarizer "
                f"{name!r} stands in for it. Give a summary in the request to have none made."
            )
        return name

    @contextmanager
    def _summarizer(self, name: str, max_new_tokens: int | None) -> Iterator[Summarizer]:
        """The summarizer called `name`, with its adapter active within the context.

        A model is asked with the prompts of the training summaries, and answers as it did then.
        """
        if max_new_tokens is not None:
            max_new_tokens = _positive("max_new_tokens", max_new_tokens)
        if name == "extractive":
            yield ExtractiveSummarizer()
            return
        with exclusive(self.model), using_adapter(self.model, SUMMARIZER if name == "adapter" else None):
            sampling = {**self._summary_sampling, **({"max_new_tokens": max_new_tokens} if max_new_tokens else {})}
            yield ModelSummarizer(self.model, self.encoder, self._summary_prompts, **sampling)


def _check_list(values, name: str) -> Sequence:
    if isinstance(values, (str, Mapping)) or not isinstance(values, Sequence):
        raise InputTypeError(f"'{name}' is a list of items, got {type(values).__name__}.")
    return values


def _check_summarizer(name: Any) -> str | None:
    if name is not None and not (isinstance(name, str) and name in SUMMARIZERS):
        raise InputError(
            f"Unknown summarizer {name!r}, expected 'auto', 'adapter', 'base-model', 'extractive' or None."
        )
    return name


def _positive(name: str, value: Any, others: str = "") -> int:
    """A positive whole number of any kind, also numpy's, as Python's own.

    Args:
        others: What may stand in its place, for the message.
    """
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise InputError(f"{name} must be a positive integer{others}, got {value!r}.")
    return number


def _check_texts(summaries: Iterable, name: str) -> None:
    for summary in summaries:
        if not isinstance(summary, str):
            raise InputTypeError(f"A summary is a string, got {type(summary).__name__} in '{name}'.")


@contextmanager
def _named_in_errors(where: str) -> Iterator[None]:
    """Say where an error in the input lies."""
    try:
        yield
    except (InputTypeError, InputError) as error:
        raise type(error)(f"{where}{error}") from error


def _fields(where) -> Mapping:
    if where is not None and not isinstance(where, Mapping):
        raise InputTypeError(f"'where' is a dict of fields and values, got {type(where).__name__}.")
    return where or {}
