"""What can go wrong with a recommender beside values that do not fit."""


class LoadError(Exception):
    """A recommender that cannot be loaded: the message says which part, why, and what to do.

    Neither an OSError nor a ValueError, of which `pipeline` makes a list of tracebacks.
    """
