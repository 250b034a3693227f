"""Keep an engine busy with the questions of many users, in bounded memory.

The strategies of many users run at a time, in a window that moves on when the oldest one ends. Their questions go into one
queue in order of arrival: all first blocks of the window, then all second ones, so that no user waits for the slowest of a
level. A question is answered from the store, joined to an equal question that is waiting, or sent to the engine. Its answer is
checked and stored before it is used. If all attempts at a question are rejected, the extractive summarizer writes the summary,
counted by reason. If most first answers are rejected, the run ends.
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
from trsr.core.summarize import Steps, SummaryRequest, SummaryResult, run_requests
from trsr.errors import EngineError
from trsr.summaries.accept import reject_reason
from trsr.summaries.engines.base import ATTEMPTS, UNREACHABLE, Engine, Request
from trsr.summaries.event_loop import run_to_end
from trsr.summaries.failures import FailureWatch
from trsr.summaries.store import Generation
from trsr.summaries.support import SupportCount

# Failed requests in a row after which the engine counts as unreachable.
FAILURES = 20
WATCHED = 100_000  # questions whose first answer is known to be counted
# Number of different failures that are printed.
SHOWN_FAILURES = 10
# Strategies that are started before the next look at new answers.
STARTED_AT_ONCE = 64


class Unanswered(EngineError):
    """A run that ended without any answer, but with too few questions to say that the engine is unreachable."""


class StoreProtocol(Protocol):
    """The methods of a `store.Store` that a run uses."""

    def get(self, keys: Sequence[str]) -> dict[str, list[Generation]]:
        """The attempts of each key that has any, first to last."""

    def put(self, generations: Sequence[Generation], identity: Mapping[str, object]) -> None:
        """Store attempts. An attempt that is stored already is not changed."""

    def set_problems(self, attempts: Sequence[Generation]) -> None:
        """Store what was found when attempts were judged again."""


@dataclass(slots=True, eq=False)
class _Running:
    """A running strategy, and the answers it waits for.

    Attributes:
        number: Its number in the order of strategies.
        texts: Answers to its questions, empty where they are missing.
        missing: Number of missing answers.
    """

    number: int
    steps: Steps
    texts: list[str] = field(default_factory=list)
    missing: int = 0


class Scheduler:
    """Runs strategies with one engine.

    Args:
        store: For generations; None stores nothing, for engines without cost.
        advance: Called with a number of answered questions, for a progress bar.
        window: Largest number of strategies that run at a time; by default a thousand, or more for engines with large batches.
        turns: Names of the methods; strategies come user by user, one for each method.
        keep_going: Do not end the run if most answers are rejected.

    Attributes:
        fallen_back: Reason -> number of summaries that the extractive summarizer wrote in the engine's place.
        fallen_back_in: The same number by method.
        reasoning_removed: Number of summaries from whose answer a block of reasoning was removed.
        left_open: Number of strategies without a result, because the engine answers their questions in a later run.
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
        # Keys of the last questions whose first answer was counted, however many users put them.
        self._watched: dict[str, None] = {}
        self._shown_failures: set[str] = set()
        self._advance_bar = advance or (lambda _: None)
        self._window = window or max(1024, 4 * engine.workers * engine.batch)
        self._methods = turns
        self._extractive = ExtractiveSummarizer()

    def run(self, strategies: Iterable[Steps], emit: Callable[[SummaryResult | None], object]) -> None:
        """Run all strategies to their ends.

        Args:
            strategies: Read as the window moves on.
            emit: Called with the result of each strategy, in order; None for one that was left open.

        Raises:
            EngineError: If the engine cannot go on. All answers so far are in the store.
        """
        if self.engine.notice:
            _print(self.engine.notice)
        run_to_end(self._run(strategies, emit))

    async def _run(self, strategies: Iterable[Steps], emit: Callable[[SummaryResult | None], object]) -> None:
        self._emit = emit
        self._queue: asyncio.Queue[Request | None] = asyncio.Queue()
        self._waiting: dict[str, list[tuple[_Running, int]]] = {}
        self._ended: dict[int, SummaryResult | None] = {}
        self._emitted = self._started = 0
        self._all_started = False
        self._window_moved = asyncio.Event()
        self._new_answers: list[tuple[Request, Answer | None]] = []
        self._storing: asyncio.Task[None] | None = None
        self._failures = self._answered = 0
        self._failure = ""
        succeeded = False
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._start_strategies(strategies))
                for _ in range(self.engine.workers):
                    tasks.create_task(self._work())
            if self._failure and not self._answered:
                raise Unanswered(self._unreachable_message())
            if self._watch and (verdict := self._watch.last()):
                raise EngineError(verdict)
            succeeded = True
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            await self.engine.close(succeeded)
        if self._support and (message := self._support.last()):
            _print(message)

    async def _start_strategies(self, strategies: Iterable[Steps]) -> None:
        remaining = iter(strategies)
        while True:
            while not (free := self._window - self._started + self._emitted):
                self._window_moved.clear()
                await self._window_moved.wait()
            ready = [
                _Running(self._started + n, steps)
                for n, steps in enumerate(islice(remaining, min(free, STARTED_AT_ONCE)))
            ]
            if not ready:
                break
            self._started += len(ready)
            self._advance_strategies(ready)
            await asyncio.sleep(0)  # lets workers handle new answers
        self._all_started = True
        self._stop_workers_if_done()

    async def _work(self) -> None:
        while (request := await self._queue.get()) is not None:
            requests = [request]
            while len(requests) < self.engine.batch and not self._queue.empty():
                if (following := self._queue.get_nowait()) is None:
                    self._queue.put_nowait(None)  # the end, which the next look at the queue must find
                    break
                requests.append(following)
            received = await self.engine.answers(requests)
            self._new_answers += zip(requests, received, strict=True)
            # Answers that arrive together are stored in one transaction, before their workers send new requests.
            if self._storing is None:
                self._storing = asyncio.create_task(self._store_answers())
            await self._storing

    async def _store_answers(self) -> None:
        arrived, self._new_answers, self._storing = self._new_answers, [], None
        checked = [
            (request, answer, self._reason_to_reject(answer, request) if answer else "") for request, answer in arrived
        ]
        if self.store is not None:
            self.store.put(
                [
                    Generation(
                        request.key,
                        request.attempt,
                        answer.text,
                        reason,
                        answer.finish_reason,
                        answer.prompt_tokens,
                        answer.completion_tokens,
                    )
                    for request, answer, reason in checked
                    if answer and not answer.failure
                ],
                self.engine.identity,
            )
        done = []
        for request, answer, reason in checked:
            if answer is None:
                self._leave_open(request)
                continue
            self._record_answer(request, answer, reason)
            if reason and not answer.failure and request.attempt + 1 < ATTEMPTS:
                self._queue.put_nowait(replace(request, attempt=request.attempt + 1))
                continue
            for running, slot in self._waiting.pop(request.key):
                self._fill(
                    running,
                    slot,
                    self._fall_back(running, request.question, reason) if reason else self._accept(answer, request),
                )
                done += [running] if running.missing == 0 else []
        self._advance_strategies(done)

    def _advance_strategies(self, ready: list[_Running]) -> None:
        """Send strategies their answers and take their next questions. Strategies that the store answers continue at once."""
        while ready:
            requests: list[tuple[_Running, int, Request]] = []
            for running in ready:
                try:
                    questions = running.steps.send(running.texts) if running.texts else next(running.steps)
                except StopIteration as end:
                    self._finish(running, end.value)
                    continue
                running.texts, running.missing = [""] * len(questions), len(questions)
                requests += ((running, slot, self.engine.request(question)) for slot, question in enumerate(questions))
            generations = self.store.get([request.key for _, _, request in requests]) if self.store is not None else {}
            changed = []
            for running, slot, request in requests:
                stored = generations.get(request.key, [])
                judged = [self._judge_again(attempt, request) for attempt in stored]
                changed += [new for new, old in zip(judged, stored, strict=True) if new != old]
                self._answer_or_enqueue(request, judged, running, slot)
            if self.store is not None and changed:
                self.store.set_problems(changed)
            ready = list(dict.fromkeys(running for running, _, _ in requests if running.missing == 0))

    def _answer_or_enqueue(
        self, request: Request, attempts: Sequence[Generation], running: _Running, slot: int
    ) -> None:
        if attempts:
            self._answered += 1
            self.engine.has_answered = True
            self._watch_first(request, attempts[0].attempt, attempts[0].problem, attempts[0].text)
        good = next((attempt for attempt in attempts if not attempt.problem), None)
        if good is not None:
            self._fill(running, slot, self._accept(_answer_of(good), request))
        elif (attempt := attempts[-1].attempt + 1 if attempts else 0) >= ATTEMPTS:
            self._fill(running, slot, self._fall_back(running, request.question, attempts[-1].problem))
        elif request.key in self._waiting:
            self._waiting[request.key].append((running, slot))
        else:
            self._waiting[request.key] = [(running, slot)]
            self._queue.put_nowait(replace(request, attempt=attempt))

    def _judge_again(self, attempt: Generation, request: Request) -> Generation:
        # An accepted answer stays accepted. A rejected one is checked again, because the rules may have changed, and an
        # imported one for the first time.
        return attempt._replace(problem=attempt.problem and self._reason_to_reject(_answer_of(attempt), request))

    def _reason_to_reject(self, answer: Answer, request: Request) -> str:
        if not self.engine.cacheable:
            return answer.failure  # counts of field values, which no rule for model texts applies to
        return reject_reason(answer, self.engine.prompts, request.question.block, request.question.summaries)

    def _accept(self, answer: Answer, request: Request) -> str:
        self.reasoning_removed += has_reasoning(answer.text)
        summary = self.engine.prompts.summary(answer.text)
        if self._support and (message := self._support.add(request.text, summary)):
            _print(message)
        return summary

    def _record_answer(self, request: Request, answer: Answer, reason: str) -> None:
        """Count a new answer. Raises EngineError if the engine is unreachable, or most answers are rejected."""
        if answer.failure:
            self._failure = f"{answer.failure}: {answer.text}" if answer.text else answer.failure
            if answer.text not in self._shown_failures and len(self._shown_failures) < SHOWN_FAILURES:
                self._shown_failures.add(answer.text)
                _print(f"No answer, {self._failure}")
        else:
            self._answered += 1
        self._failures = self._failures + 1 if answer.failure else 0
        if answer.failure == UNREACHABLE and self._failures >= FAILURES:
            raise EngineError(self._unreachable_message())
        self._watch_first(request, request.attempt, reason, answer.text)

    def _watch_first(self, request: Request, attempt: int, reason: str, text: str) -> None:
        """Count the first answer to a question, once. Raises EngineError if most answers are rejected."""
        if not self._watch or attempt or request.key in self._watched:
            return
        self._watched[request.key] = None
        if len(self._watched) > WATCHED:
            del self._watched[next(iter(self._watched))]
        if verdict := self._watch.add(request.question.kind, reason, text):
            raise EngineError(verdict)

    def _fill(self, running: _Running, slot: int, text: str) -> None:
        running.texts[slot] = text
        running.missing -= 1
        self._advance_bar(1)

    def _fall_back(self, running: _Running, question: SummaryRequest, reason: str) -> str:
        self.fallen_back[reason] += 1
        self.fallen_back_in[self._methods[running.number % len(self._methods)]] += 1
        return run_requests([question], self._extractive)[0]

    def _leave_open(self, request: Request) -> None:
        for running, _ in self._waiting.pop(request.key):
            if running.number not in self._ended and running.number >= self._emitted:
                self.left_open += 1
                self._finish(running, None)

    def _finish(self, running: _Running, result: SummaryResult | None) -> None:
        self._ended[running.number] = result
        while self._emitted in self._ended:
            self._emit(self._ended.pop(self._emitted))
            self._emitted += 1
        self._window_moved.set()
        self._stop_workers_if_done()

    def _stop_workers_if_done(self) -> None:
        if self._all_started and self._emitted == self._started:
            for _ in range(self.engine.workers):
                self._queue.put_nowait(None)

    def _unreachable_message(self) -> str:
        return (
            f"The engine {self.engine.identity['engine']!r} gave no answer {self._failures} times in a row: {self._failure}. "
            "Nothing was written. Run the same command again when it answers: what was answered is kept."
        )


def _answer_of(attempt: Generation) -> Answer:
    return Answer(attempt.text, attempt.finish_reason)


def _print(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
