"""How many requests may be under way at a server: as many as it answers within half of the time-out.

Some servers take hundreds at once, others (llama-cpp-python) one at a time while the rest wait in line. There, too many in
line would all grow too old, and the server would work on answers that nobody waits for any more. It does not say which kind
it is, but its answers tell. Knows nothing of requests.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# How fast a slow answer is forgotten, an answer: ten later it counts a third.
_FADING = 0.9


class InFlight:
    """Turns at a server.

    Args:
        most: Turns at a time, at most.
        timeout: Seconds until a request is given up.

    Attributes:
        limit: Turns that may be taken at a time now; one until the first answer.
    """

    def __init__(self, most: int, timeout: float) -> None:
        self.limit = 1
        self._most, self._timeout = most, timeout
        self._share = (
            0.0  # seconds of an answer for each request that was under way: a server that takes one at a time needs it
        )
        self._going = 0
        self._room = asyncio.Condition()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and take it.

        Raises:
            TimeoutError: If the turn takes too long.
        """
        async with self._room:
            await self._room.wait_for(lambda: self._going < self.limit)
            self._going += 1
        going, loop = self._going, asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._timeout):
                yield
            self._learn((loop.time() - began) / going)
        except TimeoutError:
            self._learn(2 * self._timeout / going)
            raise
        finally:
            self._going -= 1
            async with self._room:
                self._room.notify(max(self.limit - self._going, 0))

    def _learn(self, share: float) -> None:
        self._share = max(share, _FADING * self._share)
        self.limit = max(1, min(self._most, int(self._timeout / 2 / max(self._share, 1e-6))))
