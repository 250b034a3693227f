"""What can go wrong at a user's hands: the message says what was got, what was expected and what to do."""


class TrsrError(Exception):
    """The kind of all errors that a user can do something about."""


class InputError(TrsrError, ValueError):
    """Values that do not fit."""


class LoadError(TrsrError):
    """A recommender that cannot be loaded: the message says which part, why, and what to do.

    Neither an OSError nor a ValueError, of which `pipeline` makes a list of tracebacks.
    """
