"""Commands and events of the supervisor, handled one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from halftunnel_vpn.errors import HostError

_Result = TypeVar("_Result")


class Inbox:
    """A queue of work and its one worker, :meth:`serve`.

    A caller that is cancelled before its turn causes no work. If it is cancelled later, the work goes on to
    its end. The connections of the control socket, and one event of each kind, bound the queue.
    """

    def __init__(self) -> None:
        self._work: asyncio.Queue[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any] | None]] = (
            asyncio.Queue()
        )
        self._is_closed = False

    @staticmethod
    def over() -> HostError:
        """Return the error of a command that comes too late."""
        return HostError("This client is ending: start it again.")

    async def do(self, work: Callable[[], Awaitable[_Result]]) -> _Result:
        """Return the result of ``work`` after its turn, or raise its error; HostError after the end."""
        if self._is_closed:
            raise Inbox.over()
        answer: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._work.put_nowait((work, answer))
        return await answer

    def post(self, work: Callable[[], Awaitable[None]]) -> None:
        """Add ``work`` to the queue. An error of it ends :meth:`serve`."""
        if not self._is_closed:
            self._work.put_nowait((work, None))

    async def serve(self, is_over: Callable[[], bool]) -> None:
        """Do the work until ``is_over`` is true after a piece of it. Waiting callers then get a HostError."""
        try:
            while not is_over():
                work, answer = await self._work.get()
                if answer is None:
                    await work()
                elif not answer.done():
                    await _answered(work, answer)
        finally:
            self._is_closed = True
            while not self._work.empty():
                _, answer = self._work.get_nowait()
                if answer is not None and not answer.done():
                    answer.set_exception(Inbox.over())


async def _answered(work: Callable[[], Awaitable[Any]], answer: asyncio.Future[Any]) -> None:
    try:
        result = await work()
    except BaseException as error:
        if not answer.done():
            answer.set_exception(Inbox.over() if isinstance(error, asyncio.CancelledError) else error)
        if not isinstance(error, Exception):
            raise
    else:
        if not answer.done():
            answer.set_result(result)
