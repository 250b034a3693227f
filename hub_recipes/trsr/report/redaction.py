"""What a message may show of a server: its words without our keys, and its address without what lets one in."""

import re

from trsr.core.history import clean


def redacted(text: str, *secrets: str | None, longest: int | None = None) -> str:
    """`text` as one line of visible characters, each secret in it replaced by `***`, then cut.

    Args:
        text: Of a server, which may repeat what it was sent.
        secrets: Keys and tokens that were sent; empty ones are passed over.
        longest: Characters to keep; None = all.
    """
    shown = clean(text)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        shown = shown.replace(clean(secret) or secret, "***")
    return shown[:longest]  # cut last, or a part of a secret could be left


def address(url: str) -> str:
    """Scheme, host, port and path of an address, without user, password, query and fragment.

    A password may hold a slash by mistake: everything up to the last @ is left out, unless no colon comes before the first slash.
    """
    return re.sub(r"^([\w+.-]+://)?+(?:[^/]*:.*@|[^/]*@)", r"\1", re.split(r"[?#]", clean(url), maxsplit=1)[0])
