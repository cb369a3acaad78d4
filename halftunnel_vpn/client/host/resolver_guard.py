"""Detects when another program takes over the host's resolver configuration, and repairs it within limits."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Literal

from halftunnel_vpn.client.host.host_port import HostPort
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.host import Host
from halftunnel_vpn.host.resolver.file_watch import FileWatch
from halftunnel_vpn.host.resolver.step import Takeover

MAX_MENDS_PER_MINUTE = 5
"""The limit of repairs, so that two programs do not overwrite each other's file forever."""

MINUTE = 60.0

CHECK_EVERY = 15.0
"""The poll interval in seconds without an event: systemd-resolved's settings are in no file."""

SETTLE = 0.2
"""Seconds that a writer gets to finish its changes."""

log = logging.getLogger(__name__)


class ResolverGuard:
    """Watches the resolver configuration that ``host`` has set. :meth:`run` never returns by itself.

    ``policy``: "mend" restores the tunnel's servers, "report" only reports the program. In both cases queries
    go into the tunnel. A takeover changes which resolver is asked through it.
    """

    def __init__(
        self,
        host: HostPort,
        policy: Literal["mend", "report"],
        clock: Callable[[], float],
        counters: Counters,
    ) -> None:
        self._host = host
        self._policy = policy
        self._clock = clock
        self._counters = counters
        self._mends: deque[float] = deque(maxlen=MAX_MENDS_PER_MINUTE)
        self._reported: Takeover | None = None

    async def run(self) -> None:
        """Check after every change of the file, and periodically."""
        watch = await self._open_watch()
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def readable() -> None:
            assert watch is not None
            if watch.changed():
                changed.set()

        if watch is not None:
            loop.add_reader(watch.fd, readable)
        try:
            while True:
                try:
                    async with asyncio.timeout(CHECK_EVERY):
                        await changed.wait()
                    await asyncio.sleep(SETTLE)
                except TimeoutError:
                    pass
                changed.clear()
                await self.check()
        finally:
            if watch is not None:
                loop.remove_reader(watch.fd)
                watch.close()

    async def check(self) -> None:
        """Check once, and act as the policy says."""
        try:
            takeover = await self._host.ask(Host.takeover)
        except HostError as error:
            takeover = Takeover(str(error), "another program")
        if takeover is None:
            self._reported = None
            return
        if self._policy == "mend" and self._may_mend():
            problem = await self._host.ask(_mend)
            if problem is None:
                self._counters.count("resolver-mended")
                log.info("%s changed the resolver configuration; it was restored", takeover.by)
                return
            takeover = Takeover(problem, takeover.by)
        if takeover != self._reported:
            self._reported = takeover
            self._counters.count("resolver-taken-over")
            log.warning(
                "the resolver configuration was taken over by %s: %s", takeover.by, takeover.difference
            )

    def _may_mend(self) -> bool:
        now = self._clock()
        if len(self._mends) == MAX_MENDS_PER_MINUTE and now - self._mends[0] < MINUTE:
            return False
        self._mends.append(now)
        return True

    async def _open_watch(self) -> FileWatch | None:
        try:
            path = await self._host.ask(Host.watched_file)
            return None if path is None else FileWatch(path)
        except HostError as error:
            log.warning("%s", error)
            return None


def _mend(host: Host) -> str | None:
    try:
        return host.mend_resolver()
    except HostError as error:
        return str(error)
