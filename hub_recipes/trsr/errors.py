"""Errors that input or the environment causes: every message says what was got, what was expected and what to do.

The command line shows these, and files that cannot be read or written, in one line; any other error is a fault of ours, and
shows where it happened. `TrsrError` is the kind of all of them.
"""

from trsr.core.errors import InputError, LoadError, TrsrError

__all__ = ["InputError", "LoadError", "TrsrError"]


class UsageError(InputError):
    """Options or values that cannot be used so, or a package that is missing."""


class DataError(InputError):
    """Data that does not keep the contract: the message names the place and what to do."""


class RecipeError(InputError):
    """One or more mistakes in a recipe, a line each."""


class TrainError(InputError):
    """A run that cannot start or go on: the message says why and what to do."""


class RunError(InputError):
    """A folder that holds no finished run, or a dataset that is not the run's: the message says which and what to do."""


class EvaluationError(InputError):
    """A run that cannot be evaluated: the message says why and what to do."""


class CalibrationError(InputError):
    """Scores that do not tell how sure they are: the message says why and what to do."""


class ResultsError(InputError):
    """A results file that is missing or lacks something: the message says which and what to do."""


class CompareError(InputError):
    """Evaluations that cannot be compared: the message names both and says what to do."""


class ReleaseError(InputError):
    """A release that cannot be made or pushed as asked: the message says why and what to do."""


class HubError(InputError):
    """A call that the Hub did not take: the message says what was tried, why it failed and what to do."""


class EngineError(InputError):
    """An engine that cannot go on: the message says why and what to do. What was answered so far is kept."""
