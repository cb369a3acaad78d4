"""Checks whether the host still has the desired state: after every change of the kernel, and periodically."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel.tamper_monitor import KernelChanges

CHECK_EVERY = 10.0
"""The poll interval in seconds without a message of the kernel."""

SHORTEST_PAUSE = 0.05
"""The shortest time in seconds between two checks, so that a busy kernel costs little."""

LONGEST_PAUSE = 2.0
"""The same while another program repeatedly undoes the repairs."""

log = logging.getLogger(__name__)


class Mender:
    """Calls ``check``, which repairs differences and returns them. :meth:`run` never returns by itself."""

    def __init__(self, check: Callable[[], Awaitable[list[str]]], counters: Counters) -> None:
        self._check = check
        self._counters = counters
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Check now."""
        self._woken.set()

    async def run(self) -> None:
        """Check and repair until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            changes = KernelChanges()
        except HostError as error:
            log.warning("%s", error)
            while True:
                await asyncio.sleep(CHECK_EVERY)
                await self._check_once()

        def readable() -> None:
            if changes.drain():
                self._woken.set()

        for descriptor in changes.descriptors:
            loop.add_reader(descriptor, readable)
        pause = SHORTEST_PAUSE
        try:
            while True:
                try:
                    async with asyncio.timeout(CHECK_EVERY):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                self._woken.clear()
                pause = min(pause * 2, LONGEST_PAUSE) if await self._check_once() else SHORTEST_PAUSE
                await asyncio.sleep(pause)
        finally:
            for descriptor in changes.descriptors:
                loop.remove_reader(descriptor)
            changes.close()

    async def _check_once(self) -> bool:
        """Return whether something had to be repaired."""
        try:
            found = await self._check()
        except HostError as error:
            self._counters.count("host-mend-failures")
            log.warning("the host differs from the desired state and could not be repaired: %s", error)
            return True
        if found:
            self._counters.count("host-mended")
            log.warning("another program changed the host; repaired: %s", " ".join(found[:4]))
        return bool(found)
