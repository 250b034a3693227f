"""Call the Hub with retries for transient errors; any other error becomes one message, which never shows the token."""

import time
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Any, TypeVar

from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import get_token, parse_ratelimit_headers
from tqdm.auto import tqdm

from trsr.errors import HubError, TrsrError
from trsr.report.redaction import redacted

TRIES = 5
LONGEST = 300.0  # seconds of one wait; the Hub counts calls over windows of five minutes
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
STALE = frozenset({409, 412})  # another commit is in progress, or came first
_AGAIN = "Run the same command again: it goes on where it stopped."

T = TypeVar("T")


def with_retries(what: str, call: Callable[[], T], also: Container[int] = (), tries: int = TRIES) -> T:
    """Make a call, up to `tries` times: errors of the network and of a busy server are often transient.

    The call must be safe to repeat: its response may get lost after it took effect.

    Args:
        what: What the call does, for messages: `Commit to ORG/NAME`.
        also: Further status codes to try again on.

    Raises:
        HubError: If the error is not transient, or all tries failed.
    """
    for attempt in range(1, tries + 1):
        try:
            return call()
        except TrsrError:
            raise
        # ValueError: a card with a header that the Hub refuses.
        except (HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, RuntimeError, ValueError) as raised:
            error = _origin(raised)
            status = _status(error)
            transient = isinstance(error, HTTPError) and (status is None or status in _TRANSIENT or status in also)
            if not transient:
                if not isinstance(error, (HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled)):
                    raise
                if isinstance(raised, ValueError) and raised is not error:
                    raise HubError(f"{what}: {_in_one_line(raised, error)}") from None
                raise HubError(explain(what, error)) from None
            if attempt == tries:
                raise HubError(f"{explain(what, error)} Tried {tries} times. {_AGAIN}") from None
            seconds = _wait(error, attempt)
            tqdm.write(f"{what}: {_reason(error)}; trying again in {seconds:.0f} s")
            time.sleep(seconds)
    raise AssertionError("unreachable")


def explain(what: str, error: Exception) -> str:
    """The message for an error of the Hub: what failed, why, and what to do."""
    status = _status(error)
    if isinstance(error, OfflineModeIsEnabled):
        return f"{what}: HF_HUB_OFFLINE is set. Unset it to speak to the Hub."
    if isinstance(error, LocalTokenNotFoundError):
        return f"{what}: there is no token. Log in with: hf auth login"
    if status == 401:
        return f"{what}: the Hub does not take the token; it may have expired. Log in again with: hf auth login"
    if status == 403:
        return (
            f"{what}: the token has no right to do this ({_reason(error)}). Take a token that may write there, and be a "
            "member of the organisation with that right: https://huggingface.co/settings/tokens"
        )
    return f"{what}: {_reason(error)}."


def _origin(error: BaseException) -> Exception:
    """The HTTP error of the Hub that caused an error of a client library; else the error itself."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HTTPError):
            return cause
        cause = cause.__cause__
    assert isinstance(error, Exception)
    return error


def _status(error: Exception) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _reason(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        server_message = f": {error.server_message}" if error.server_message else ""
        text = f"the Hub answered {error.response.status_code}{server_message}"
    else:
        text = f"the Hub could not be reached ({type(error).__name__}: {error})"
    return redacted(text, get_token(), _sent_token(error))


def _in_one_line(raised: ValueError, error: Exception) -> str:
    """What a client library made of an answer of the Hub."""
    text = redacted(" ".join(str(raised).split()), get_token(), _sent_token(error)).rstrip(".")
    return f"the Hub refuses it ({text}). Mend what it names, and run the command again."


def _sent_token(error: Exception) -> str | None:
    """The token of the request that failed, which may be another than that of the login."""
    holder: Any = error.response if isinstance(error, HfHubHTTPError) else error
    with suppress(AttributeError, RuntimeError):  # an error without its request
        return holder.request.headers.get("Authorization", "").removeprefix("Bearer ")
    return None


def _wait(error: Exception, attempt: int) -> float:
    """Seconds to wait: as long as the Hub says, else 1, 2, 4, 8."""
    if isinstance(error, HfHubHTTPError):
        limits = parse_ratelimit_headers(error.response.headers)
        if limits and not limits.remaining:
            return min(float(limits.reset_in_seconds) + 1, LONGEST)
        retry_after = error.response.headers.get("Retry-After", "")
        if retry_after.isdigit():
            return min(float(retry_after), LONGEST)
    return float(2 ** (attempt - 1))
