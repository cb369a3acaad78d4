"""Which event loop runs the process."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
from collections.abc import Coroutine
from typing import Any, TypeVar

from halftunnel_vpn.transport.memory import keep_freed_memory

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run ``main`` to its end on uvloop where it is installed, else on plain asyncio."""
    keep_freed_memory()
    gc.collect()
    gc.freeze()  # modules and code stay: there is no use in looking at them again and again
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.run(main)
    # Imported here so that `htvpn --help` does not pay for it.
    import uvloop

    result: Result = uvloop.run(main)
    return result
