"""Work that blocks: in a thread, one thing at a time, each to its end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


class SerialThread:
    """The one way in which an event loop has work on the host done.

    A caller that is cancelled while it waits for its turn has nothing done. One that is cancelled later ends
    when the thread has ended, however often it is cancelled: nothing goes on behind the next one's back.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __call__(self, work: Callable[[], _Result]) -> _Result:
        """Return the result of ``work``; raise what it raises."""
        async with self._lock:
            # A future of the executor, not a task: a loop that ends cancels its tasks, and would let go.
            doing = asyncio.get_running_loop().run_in_executor(None, functools.partial(work))
            try:
                return await asyncio.shield(doing)
            except asyncio.CancelledError:
                while not doing.done():
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait((doing,))
                doing.exception()  # nobody is left who could be told
                raise
