"""Work on the host that blocks: in a thread, one thing at a time, each to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


class HostTurn:
    """Called with what blocks, it gives what that gives.

    Who is cancelled while waiting for a turn has nothing done; who is cancelled later ends when the thread
    has ended, so that nothing goes on behind anybody's back.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __call__(self, work: Callable[[], _Result]) -> _Result:
        """The result of ``work``; raises what it raises."""
        async with self._lock:
            doing = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                return await asyncio.shield(doing)
            except asyncio.CancelledError:
                await asyncio.wait((doing,))
                doing.exception()  # nobody is left who could be told
                raise
