"""What can go wrong at a user's hands: every message says what was got, what was expected and what to do.

The command line shows these in one line; any other error is a fault of ours, and shows where it happened.
"""


class TrsrError(ValueError):
    """The kind of all of them."""


class UsageError(TrsrError):
    """Options or values that cannot be used so, or a package that is missing."""


class DataError(TrsrError):
    """Data that does not keep the contract: the message names the place and what to do."""


class RecipeError(TrsrError):
    """One or more mistakes in a recipe, a line each."""


class TrainError(TrsrError):
    """A run that cannot start or go on: the message says why and what to do."""


class RunError(TrsrError):
    """A folder that holds no finished run, or a dataset that is not the run's: the message says which and what to do."""


class EvaluationError(TrsrError):
    """A run that cannot be evaluated: the message says why and what to do."""


class CalibrationError(TrsrError):
    """Scores that do not tell how sure they are: the message says why and what to do."""


class ResultsError(TrsrError):
    """A results file that is missing or lacks something: the message says which and what to do."""


class CompareError(TrsrError):
    """Evaluations that cannot be compared: the message names both and says what to do."""


class ReleaseError(TrsrError):
    """A release that cannot be made or pushed as asked: the message says why and what to do."""


class HubError(TrsrError):
    """A call that the Hub did not take: the message says what was tried, why it failed and what to do."""


class EngineError(TrsrError):
    """An engine that cannot go on: the message says why and what to do. What was answered so far is kept."""
