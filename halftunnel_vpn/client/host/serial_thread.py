"""Blocking work in a thread: one call at a time, each to its end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import TypeVar

_Result = TypeVar("_Result")


class SerialThread:
    """The only way in which an event loop runs blocking work on the host.

    A caller that is cancelled before its turn causes no work. A caller that is cancelled later returns only
    when the thread is done, however often it is cancelled. So work never runs in parallel with the next call.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __call__(self, work: Callable[[], _Result]) -> _Result:
        """Return the result of ``work``; raise what it raises."""
        async with self._lock:
            # Use a future of the executor, not a task: a loop that ends cancels its tasks before their
            # threads end.
            doing = asyncio.get_running_loop().run_in_executor(None, functools.partial(work))
            try:
                return await asyncio.shield(doing)
            except asyncio.CancelledError:
                while not doing.done():
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait((doing,))
                doing.exception()  # the caller was cancelled, so nobody receives it
                raise


async def to_its_end(ending: Callable[[], Awaitable[None]]) -> None:
    """Await ``ending`` even if the caller is cancelled in the meantime."""
    await asyncio.shield(asyncio.ensure_future(ending()))
