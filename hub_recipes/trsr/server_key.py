"""The key for servers that are asked by address, from the environment variable OPENAI_API_KEY."""

import os

from trsr.errors import UsageError


def server_key() -> str:
    """OPENAI_API_KEY without spaces around it; empty where it is not set.

    Raises:
        UsageError: If no header can hold it. The message does not show it.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if key.isascii() and key.isprintable():
        return key
    raise UsageError(
        "OPENAI_API_KEY holds characters that no key has, such as line breaks or letters with accents: copy the key again."
    )
