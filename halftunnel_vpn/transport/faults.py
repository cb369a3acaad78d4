"""Faults that nothing awaits: they are counted and logged, and stop nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import UnexpectedEnd

FAULT = "internal-fault"
"""Reason under which they are counted."""

MAX_TRACEBACKS = 10
"""Faults logged with their traceback in each TRACEBACK_PERIOD; further ones are counted alone."""

TRACEBACK_PERIOD = 60.0
"""Seconds."""

log = logging.getLogger(__name__)


class FaultHandler:
    """The exception handler of an event loop: callbacks, timers, protocols and tasks that nobody awaits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: Counters) -> None:
        self._counters = counters
        self._period_began = float("-inf")
        self._logged = 0
        loop.set_exception_handler(self._handle)

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._counters.drop(FAULT)
        now = loop.time()
        if now - self._period_began >= TRACEBACK_PERIOD:
            self._period_began, self._logged = now, 0
        self._logged += 1
        if self._logged <= MAX_TRACEBACKS:
            log.error("%s", context.get("message", "a fault"), exc_info=context.get("exception"))


def contain(call: Callable[[], None], what: str) -> None:
    """Run ``call``; what it raises goes to the loop's exception handler and ends nothing else."""
    try:
        call()
    except Exception as error:
        asyncio.get_running_loop().call_exception_handler({"message": f"{what} failed", "exception": error})


async def contained(work: Coroutine[Any, Any, None], what: str) -> None:
    """Await short ``work``; what it raises goes to the loop's exception handler and ends nothing else."""
    try:
        await work
    except Exception as error:
        asyncio.get_running_loop().call_exception_handler({"message": f"{what} failed", "exception": error})


async def endless(work: Coroutine[Any, Any, object], what: str) -> None:
    """Await ``work`` that must not end before it is cancelled. Raises UnexpectedEnd if it returns."""
    await work
    raise UnexpectedEnd(f"{what} has ended unexpectedly; this is a fault of Half-Tunnel, please report it.")
