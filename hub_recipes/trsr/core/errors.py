"""Errors that a user can act on: each message says what was given, what was expected and what to do."""


class TrsrError(Exception):
    """Base class of all errors that a user can act on."""


class InputError(TrsrError, ValueError):
    """An argument or a value in the input is invalid."""


class InputTypeError(TrsrError, TypeError):
    """A value in the input is of another kind than it must be."""


class LoadError(TrsrError):
    """A recommender that cannot be loaded: the message says which part, why, and what to do.

    Neither an OSError nor a ValueError: `pipeline` catches those and shows a list of tracebacks instead of the message.
    """
