"""Which codes of languages the Hub takes in the header of a card: it refuses cards with others.

Its fields: https://github.com/huggingface/hub-docs/blob/main/datasetcard.md
"""

import re
from collections.abc import Sequence

SPECIAL = frozenset({"code", "multilingual"})


def problem(codes: Sequence[str], option: str, what: str) -> str | None:
    """A message for the first code that the Hub does not take; None if it takes all.

    Args:
        option: Command-line option that sets the codes.
        what: What is in these languages, such as `the items`.
    """
    for code in codes:
        if code in SPECIAL or re.fullmatch("[a-z]{2,3}", str(code)):
            continue
        shorter = str(code).partition("-")[0].partition("_")[0].strip().lower()
        hint = f" Did you mean {shorter}?" if re.fullmatch("[a-z]{2,3}", shorter) else ""
        return (
            f"The language {code!r} of {what} is none that the Hub takes.{hint} Set {option} to ISO 639 codes of two or three small "
            "letters, such as en, or to multilingual."
        )
    return None
