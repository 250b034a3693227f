"""What is right about log-odds that a server gives, and what is likely wrong where they differ from what they should be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit, logit

from trsr.hub.endpoints import SMALLEST

# Largest difference in log-odds of two ways to compute: in fp32, and in half precision, where they differ by some hundredths.
EXACT, HALF = 1e-3, 0.25
# A mistake is named where its answers are this close, and this much closer than the right ones: parts of the spread.
CLOSE, CLOSER = 0.1, 1 / 3
# Answers this much alike are the right weights, rounded; less alike, other weights of the same kind.
ROUNDED, RELATED = 0.98, 0.6


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        difference: Largest difference in log-odds.
        right: Whether it is no larger than allowed.
        said: Sentences: what is right, or what is likely wrong, the likeliest first.
    """

    difference: float
    right: bool
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Probabilities:
    """What log-odds look like to whoever is told probabilities in fp32.

    Attributes:
        temperature: Log-odds are divided by it first.
    """

    temperature: float = 1.0

    def clip(self, log_odds: np.ndarray) -> np.ndarray:
        """Log-odds as the probabilities show them; the largest are all alike."""
        return self._log_odds(expit(log_odds / self.temperature))

    def range(self, log_odds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest log-odds that rounding of the probabilities can give."""
        probability = expit(log_odds / self.temperature)
        rounding = float(np.finfo(np.float32).eps) * probability
        return self._log_odds(probability - rounding), self._log_odds(probability + rounding)

    def _log_odds(self, probability: np.ndarray) -> np.ndarray:
        return logit(np.clip(probability, SMALLEST, 1 - SMALLEST)) * self.temperature


def tolerance_of(dtype: str) -> float:
    """Largest difference in log-odds that is right for weights of a precision, such as `float32`."""
    return EXACT if dtype == "float32" else HALF


def diagnose(
    expected: Mapping[str, Any],
    answers: Sequence[Sequence[float]],
    again: Sequence[Sequence[float]] | None = None,
    tokens: Sequence[Sequence[int | None]] | None = None,
    tolerance: float = EXACT,
    probabilities: Probabilities | None = None,
) -> Diagnosis:
    """Hold answers against what is expected.

    Args:
        expected: Content of `expected.json`.
        answers: Log-odds of each request's candidates.
        again: The same, asked once more.
        tokens: How many tokens each prompt had, as the server says; None where it does not.
        tolerance: Largest difference in log-odds that is right.
        probabilities: That the answers were made from; differences that these cannot show do not count.
    """
    requests = expected["requests"]
    wanted, actual = (_flat(some) for some in ([request["log_odds"] for request in requests], answers))
    mistakes = _known_mistakes(requests, wanted)
    low, high = wanted, wanted
    if probabilities:
        low, high = probabilities.range(wanted)
        wanted = probabilities.clip(wanted)
        mistakes = {name: probabilities.clip(log_odds) for name, log_odds in mistakes.items()}
    difference = float(np.maximum(np.maximum(low - actual, actual - high), 0).max())
    if difference <= tolerance:
        coarse = ", as far as probabilities in fp32 show them" if (high - low).max() > tolerance else ""
        return Diagnosis(difference, True, [f"All log-odds are right, to {difference:.1g}{coarse}."])
    # Quantised weights answer a bit otherwise too, where a prompt is computed in other parts, as behind a prompt cache.
    if again is not None and not _is_noisy(actual, second := _flat(again)):
        moved = float(np.abs(second - actual).max())
        if moved > HALF:
            sampled = f"The same question gets other answers (by {moved:.2g}): they are sampled. Ask for probabilities, at temperature 1."
            return Diagnosis(difference, False, [sampled])
    spread = float(wanted.std()) or 1.0
    if np.ptp(np.abs(actual)) < 1e-3 <= np.ptp(np.abs(wanted)):
        return Diagnosis(
            difference, False, ["Answers are yes or no alone, not probabilities: they are sampled, or cut off."]
        )
    said = [*_lengths(requests, tokens), *_mistakes(mistakes, wanted, actual, spread)]
    if not said:
        said = [_weights(wanted, actual, difference)]
    return Diagnosis(difference, False, said)


def _flat(some: Sequence[Sequence[float]]) -> np.ndarray:
    return np.concatenate([np.asarray(log_odds, np.float64) for log_odds in some])


def _lengths(requests: Sequence[Mapping[str, Any]], tokens: Sequence[Sequence[int | None]] | None) -> list[str]:
    """What the lengths of the prompts say."""
    if not tokens or any(count is None for some in tokens for count in some):
        return []
    gaps = [
        had - len(request["prefix"]) - len(suffix)
        for request, some in zip(requests, tokens, strict=True)
        for suffix, had in zip(request["suffixes"], some, strict=True)
        if had is not None
    ]
    if set(gaps) == {0}:
        return []
    if set(gaps) == {1}:
        return ["Each prompt has one token too many: a BOS that stands twice, or something that follows the prompt."]
    if min(gaps) < 0:
        return [f"Prompts are cut: {-min(gaps)} tokens are missing of the longest. Give the server a longer context."]
    return [f"Prompts have {min(gaps)} to {max(gaps)} tokens too many: another template is put around them."]


def _known_mistakes(requests: Sequence[Mapping[str, Any]], wanted: np.ndarray) -> dict[str, np.ndarray]:
    """Mistake -> log-odds of all candidates that it would give."""
    names = [name for name in requests[0]["if_wrong"] if all(name in request["if_wrong"] for request in requests)]
    mistakes = {name: _flat([request["if_wrong"][name] for request in requests]) for name in names}
    return {**mistakes, "yes and no are swapped": -wanted}


def _mistakes(mistakes: Mapping[str, np.ndarray], wanted: np.ndarray, actual: np.ndarray, spread: float) -> list[str]:
    """The known mistakes whose answers these are, the closest first."""
    own = _distance(actual, wanted)
    distances = {name: _distance(actual, answers) for name, answers in mistakes.items()}
    return [
        f"These are the answers where {name} (to {distance:.1g})."
        for name, distance in sorted(distances.items(), key=lambda pair: pair[1])
        if distance < CLOSE * spread and distance < CLOSER * own
    ]


def _distance(actual: np.ndarray, answers: np.ndarray) -> float:
    """Root of the mean squared difference."""
    return float(np.sqrt(np.mean((actual - answers) ** 2)))


def is_rounding(expected: Mapping[str, Any], answers: Sequence[Sequence[float]]) -> bool:
    """Whether log-odds are those of `expected.json` with noise, as weights of few bits give them."""
    wanted, actual = (_flat(some) for some in ([request["log_odds"] for request in expected["requests"]], answers))
    return _is_noisy(wanted, actual)


def _is_noisy(wanted: np.ndarray, actual: np.ndarray) -> bool:
    """Quantised weights also shift all answers alike, by much more than the noise: that does not count."""
    spread = float(wanted.std()) or 1.0
    return _likeness(wanted, actual) > ROUNDED and float((actual - wanted).std()) < CLOSE * 2 * spread


def _likeness(wanted: np.ndarray, actual: np.ndarray) -> float:
    """Their correlation; 0 where there is none."""
    if not np.isfinite(actual).all() or not actual.std() or not wanted.std():
        return 0.0
    return float(np.corrcoef(wanted, actual)[0, 1])


def _weights(wanted: np.ndarray, actual: np.ndarray, difference: float) -> str:
    """What the likeness of the answers says of the weights."""
    alike = _likeness(wanted, actual)
    shown = f"they correlate by {alike:.2f} with the right ones"
    if _is_noisy(wanted, actual):
        shown += f", and are {float((actual - wanted).mean()):+.2g} off on average"
        precision = "in half precision or quantised" if difference <= HALF else "quantised"
        return f"The answers are the right ones with noise ({shown}): the weights are {precision}, or of a revision that hardly differs."
    if alike > RELATED:
        return (
            f"The answers are like the right ones, and no known mistake ({shown}): weights of another revision, another summary, "
            "or a prompt in other words."
        )
    return f"The answers have little to do with the right ones ({shown}): another base or adapter, or another prompt."
