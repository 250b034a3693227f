"""How requests are made to fail."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.hub.call import Refusal
from tests.hub.files import STALE

OF_THE_CONNECTION = ("drop", "lost")
REFUSALS = {
    "expired": Refusal(401, "Invalid credentials in Authorization header"),
    "forbidden": Refusal(403, "Forbidden: your rights were withdrawn."),
    "412": Refusal(412, STALE),
    "429": Refusal(429, "Too Many Requests", headers={"Retry-After": "0", "RateLimit": '"api";r=0;t=0'}),
    "500": Refusal(500, "Internal Server Error"),
    "503": Refusal(503, "Service Unavailable"),
}


@dataclass(frozen=True)
class Fault:
    """Request number `at` fails, or all from it on."""

    at: int
    kind: str
    forever: bool

    def __post_init__(self) -> None:
        known = (*OF_THE_CONNECTION, *REFUSALS)
        if self.kind not in known:
            raise ValueError(f"Unknown fault {self.kind!r}. Expected one of {', '.join(known)}.")

    def hits(self, number: int, writes: bool) -> bool:
        due = self.at == number or (self.forever and self.at < number)
        return due and (writes or self.kind != "forbidden")


def due(faults: Iterable[Fault], number: int, writes: bool) -> str | None:
    """The kind of fault that a request meets: one for this request alone first, then the one that began last."""
    found = [fault for fault in faults if fault.hits(number, writes)]
    return max(found, key=lambda fault: (not fault.forever, fault.at)).kind if found else None
