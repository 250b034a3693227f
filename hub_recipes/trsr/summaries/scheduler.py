"""Keep an engine busy with the questions of many users, in bounded memory.

Strategies of many users are open at a time, in a window that moves on as the oldest one ends. Whatever they can ask goes
into one queue, first come first served: all first blocks of the window, then all second ones, and no user waits for the
slowest of a level. A question is looked up in the store, joined to the same one under way, or put to the engine; its
answer is judged and kept before anything builds on it. One that stays bad gives way to the extractive summarizer, counted
by reason; where most first answers are bad, the run ends.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from tqdm.auto import tqdm

from trsr.core.answer import Answer
from trsr.core.control_tokens import has_reasoning
from trsr.core.extractive import ExtractiveSummarizer
from trsr.core.summarize import Steps, SummaryRequest, SummaryResult, answers
from trsr.errors import EngineError
from trsr.summaries.accept import reject_reason
from trsr.summaries.engines.base import ATTEMPTS, UNREACHABLE, Engine, Request
from trsr.summaries.event_loop import run_to_end
from trsr.summaries.failures import FailureWatch
from trsr.summaries.store import Generation
from trsr.summaries.support import SupportCount

# So many requests in a row without an answer, and the engine is taken to be gone.
FAILURES = 20
# Different failures that are shown.
TOLD = 10
# So many strategies are begun before answers that came meanwhile are looked at.
TOGETHER = 64


class Unanswered(EngineError):
    """A run that ended without a single answer, but with too few questions to take the engine for gone."""


class StoreProtocol(Protocol):
    """What a run needs of a `store.Store`."""

    def get(self, keys: Sequence[str]) -> dict[str, list[Generation]]:
        """The attempts at each key that has any, first to last."""

    def put(self, made: Sequence[Generation], identity: Mapping[str, object]) -> None:
        """Keep attempts; one that is kept already stays as it is."""


@dataclass(slots=True, eq=False)
class _Open:
    """A strategy under way, and the answers it waits for."""

    place: int
    steps: Steps
    texts: list[str] = field(default_factory=list)
    missing: int = 0


class Scheduler:
    """Runs strategies with one engine.

    Args:
        store: Where generations are kept; None keeps nothing, for engines that cost nothing.
        advance: Called with a number of answered questions, for a progress bar.
        window: Most strategies open at a time; by default a thousand, and more for engines that take more at once.
        turns: What the strategies are called, which come in turn: a user's, one a method.
        keep_going: Do not end where most answers are no summaries.

    Attributes:
        fallen_back: Reason -> number of summaries that the extractive summarizer wrote in the engine's place.
        fallen_back_in: The same by the names in `turns`.
        reasoning_removed: Number of summaries from whose answer a block of reasoning was taken out.
        left_open: Strategies that ended without a trail, because the engine leaves their questions for a later run.
    """

    def __init__(
        self,
        engine: Engine,
        store: StoreProtocol | None = None,
        advance: Callable[[int], object] | None = None,
        window: int = 0,
        turns: Sequence[str] = ("",),
        keep_going: bool = False,
    ) -> None:
        self.engine = engine
        self.store = store
        self.fallen_back: Counter[str] = Counter()
        self.fallen_back_in: Counter[str] = Counter()
        self.left_open = self.reasoning_removed = 0
        self._watch = None if keep_going else FailureWatch(engine.identity.get("sampling", {}))
        self._support = SupportCount() if engine.notice else None
        self._told: set[str] = set()
        self._advance_bar = advance or (lambda _: None)
        self._window = window or max(1024, 4 * engine.workers * engine.batch)
        self._turns = turns
        self._instead = ExtractiveSummarizer()

    def run(self, strategies: Iterable[Steps], emit: Callable[[SummaryResult | None], object]) -> None:
        """Run strategies to their ends.

        Args:
            strategies: Read as the window moves on.
            emit: Called with each one's trail, in their order; None for one that was left open.

        Raises:
            EngineError: If the engine cannot go on. What was answered so far is in the store.
        """
        if self.engine.notice:
            _say(self.engine.notice)
        run_to_end(self._run(strategies, emit))

    async def _run(self, strategies: Iterable[Steps], emit: Callable[[SummaryResult | None], object]) -> None:
        self._emit = emit
        self._queue: asyncio.Queue[Request | None] = asyncio.Queue()
        self._waiting: dict[str, list[tuple[_Open, int]]] = {}
        self._ended: dict[int, SummaryResult | None] = {}
        self._emitted = self._begun = 0
        self._all_begun = False
        self._room = asyncio.Event()
        self._arrived: list[tuple[Request, Answer | None]] = []
        self._settling: asyncio.Task[None] | None = None
        self._failures = self._answered = 0
        self._failure = ""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._begin(strategies))
                for _ in range(self.engine.workers):
                    tasks.create_task(self._work())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            await self.engine.close()
        if self._failure and not self._answered:
            raise Unanswered(self._gone())
        if self._watch and (verdict := self._watch.last()):
            raise EngineError(verdict)
        if self._support and (said := self._support.last()):
            _say(said)

    async def _begin(self, strategies: Iterable[Steps]) -> None:
        coming = iter(strategies)
        while True:
            while not (room := self._window - self._begun + self._emitted):
                self._room.clear()
                await self._room.wait()
            some = [_Open(self._begun + n, steps) for n, steps in enumerate(islice(coming, min(room, TOGETHER)))]
            if not some:
                break
            self._begun += len(some)
            self._go_on(some)
            await asyncio.sleep(0)  # answers that came meanwhile
        self._all_begun = True
        self._dismiss_if_done()

    async def _work(self) -> None:
        while (request := await self._queue.get()) is not None:
            requests = [request]
            while len(requests) < self.engine.batch and not self._queue.empty():
                if more := self._queue.get_nowait():
                    requests.append(more)
            made = await self.engine.answers(requests)
            self._arrived += zip(requests, made, strict=True)
            # Answers that arrive together are kept in one transaction, before any of their workers asks anew.
            if self._settling is None:
                self._settling = asyncio.create_task(self._settle())
            await self._settling

    async def _settle(self) -> None:
        arrived, self._arrived, self._settling = self._arrived, [], None
        judged = [(request, answer, self._judge(answer, request) if answer else "") for request, answer in arrived]
        if self.store is not None:
            self.store.put(
                [
                    Generation(
                        request.key,
                        request.attempt,
                        answer.text,
                        why,
                        answer.finish_reason,
                        answer.prompt_tokens,
                        answer.completion_tokens,
                    )
                    for request, answer, why in judged
                    if answer and not answer.failure
                ],
                self.engine.identity,
            )
        done = []
        for request, answer, why in judged:
            if answer is None:
                self._leave(request)
                continue
            self._count(request, answer, why)
            if why and not answer.failure and request.attempt + 1 < ATTEMPTS:
                self._queue.put_nowait(replace(request, attempt=request.attempt + 1))
                continue
            for one, slot in self._waiting.pop(request.key):
                self._fill(
                    one, slot, self._fall_back(one, request.question, why) if why else self._read(answer, request)
                )
                done += [one] if one.missing == 0 else []
        self._go_on(done)

    def _go_on(self, some: list[_Open]) -> None:
        """Send strategies what they wait for, and put what they ask next; those that the store answers go on at once."""
        while some:
            asked: list[tuple[_Open, int, Request]] = []
            for one in some:
                try:
                    questions = one.steps.send(one.texts) if one.texts else next(one.steps)
                except StopIteration as end:
                    self._end(one, end.value)
                    continue
                one.texts, one.missing = [""] * len(questions), len(questions)
                asked += ((one, slot, self.engine.request(question)) for slot, question in enumerate(questions))
            kept = self.store.get([request.key for _, _, request in asked]) if self.store is not None else {}
            for one, slot, request in asked:
                self._put(request, kept.get(request.key, []), one, slot)
            some = list(dict.fromkeys(one for one, _, _ in asked if one.missing == 0))

    def _put(self, request: Request, kept: Sequence[Generation], one: _Open, slot: int) -> None:
        answers = [Answer(attempt.text, attempt.finish_reason) for attempt in kept]
        # A summary stays one; what was no summary once may be one by now.
        reasons = [
            attempt.problem and self._judge(answer, request) for attempt, answer in zip(kept, answers, strict=True)
        ]
        if kept:
            self._answered += 1
            self.engine.has_answered = True
            if (
                self._watch
                and not kept[0].attempt
                and (verdict := self._watch.add(request.question.kind, reasons[0], kept[0].text))
            ):
                raise EngineError(verdict)
        good = next((answer for answer, why in zip(answers, reasons, strict=True) if not why), None)
        if good is not None:
            self._fill(one, slot, self._read(good, request))
        elif (attempt := kept[-1].attempt + 1 if kept else 0) >= ATTEMPTS:
            self._fill(one, slot, self._fall_back(one, request.question, reasons[-1]))
        elif request.key in self._waiting:
            self._waiting[request.key].append((one, slot))
        else:
            self._waiting[request.key] = [(one, slot)]
            self._queue.put_nowait(replace(request, attempt=attempt))

    def _judge(self, answer: Answer, request: Request) -> str:
        if not self.engine.cacheable:
            return answer.failure  # counts, in no model's words
        return reject_reason(answer, self.engine.prompts, request.question.block, request.question.summaries)

    def _read(self, answer: Answer, request: Request) -> str:
        self.reasoning_removed += has_reasoning(answer.text)
        summary = self.engine.prompts.summary(answer.text)
        if self._support and (said := self._support.add(request.text, summary)):
            _say(said)
        return summary

    def _count(self, request: Request, answer: Answer, why: str) -> None:
        """Take note of an answer that has come; end the run if the engine is gone, or most answers are no summaries."""
        if answer.failure:
            self._failure = f"{answer.failure}: {answer.text}" if answer.text else answer.failure
            if answer.text not in self._told and len(self._told) < TOLD:
                self._told.add(answer.text)
                _say(f"No answer, {self._failure}")
        else:
            self._answered += 1
        self._failures = self._failures + 1 if answer.failure else 0
        if answer.failure == UNREACHABLE and self._failures >= FAILURES:
            raise EngineError(self._gone())
        if (
            self._watch
            and not request.attempt
            and (verdict := self._watch.add(request.question.kind, why, answer.text))
        ):
            raise EngineError(verdict)

    def _fill(self, one: _Open, slot: int, text: str) -> None:
        one.texts[slot] = text
        one.missing -= 1
        self._advance_bar(1)

    def _fall_back(self, one: _Open, question: SummaryRequest, why: str) -> str:
        self.fallen_back[why] += 1
        self.fallen_back_in[self._turns[one.place % len(self._turns)]] += 1
        return answers([question], self._instead)[0]

    def _leave(self, request: Request) -> None:
        for one, _ in self._waiting.pop(request.key):
            if one.place not in self._ended and one.place >= self._emitted:
                self.left_open += 1
                self._end(one, None)

    def _end(self, one: _Open, trail: SummaryResult | None) -> None:
        self._ended[one.place] = trail
        while self._emitted in self._ended:
            self._emit(self._ended.pop(self._emitted))
            self._emitted += 1
        self._room.set()
        self._dismiss_if_done()

    def _dismiss_if_done(self) -> None:
        if self._all_begun and self._emitted == self._begun:
            for _ in range(self.engine.workers):
                self._queue.put_nowait(None)

    def _gone(self) -> str:
        return (
            f"The engine {self.engine.identity['engine']!r} gave no answer {self._failures} times in a row: {self._failure}. "
            "Nothing was written. Run the same command again when it answers: what was answered is kept."
        )


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
