"""Run a coroutine from synchronous code, in a script or in a notebook whose own event loop is running."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")


def run_to_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end; in a thread of its own if an event loop is running already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(loop.run_until_complete, task)
        try:
            return ended.result()
        except BaseException:
            if not loop.is_closed() and not ended.done():
                loop.call_soon_threadsafe(task.cancel)  # stopped by hand
            raise
        finally:
            pool.submit(loop.close)
