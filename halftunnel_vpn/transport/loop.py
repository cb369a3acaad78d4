"""Which event loop runs the process."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
from collections.abc import Coroutine
from typing import Any, TypeVar

from halftunnel_vpn.config.shared import DEFAULT_NICE
from halftunnel_vpn.transport.kernel.malloc import keep_freed_memory
from halftunnel_vpn.transport.kernel.scheduling import ordinary_workers, take_priority

Result = TypeVar("Result")

FULL_COLLECTION = 100
"""Collections of the middle generation for one of everything (Python's own: 10).

A full one stops the process for 50 to 130 ms when there are thousands of flows, and finds next to nothing:
what a flow was is freed by reference counts when it is over."""


def run(main: Coroutine[Any, Any, Result], *, nice: int = DEFAULT_NICE) -> Result:
    """Run ``main`` to its end, at priority ``nice``, on uvloop if it is installed, otherwise on asyncio.

    A program that imports much may disable the garbage collector before: it is enabled here.
    """
    keep_freed_memory()
    take_priority(nice)
    # Modules and code stay, so the collector need not scan them. To collect first would take 25 ms and free
    # half a megabyte.
    gc.freeze()
    gc.enable()
    youngest, middle, _ = gc.get_threshold()
    gc.set_threshold(youngest, middle, FULL_COLLECTION)
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.run(_with_workers(main))
    # Imported here so that `htvpn --help` does not pay for it.
    import uvloop

    result: Result = uvloop.run(_with_workers(main))
    return result


async def _with_workers(main: Coroutine[Any, Any, Result]) -> Result:
    asyncio.get_running_loop().set_default_executor(ordinary_workers())
    return await main
