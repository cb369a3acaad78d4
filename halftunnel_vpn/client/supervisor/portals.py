"""Captive portals: the opening for one, and the watch for one while a tunnel has no legs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.client.supervisor.captive_portal import Portal, PortalWatch
from halftunnel_vpn.client.supervisor.tunnel_port import TunnelPort
from halftunnel_vpn.host.kernel.traffic_policy import Opening

OPENINGS: Final = (
    Opening(protocol="tcp", ports=(53, 80, 443, 8080)),
    Opening(protocol="udp", ports=(53,)),
)
"""What a captive portal needs: names, and its web pages."""

LOST: Final = "direction-lost"
"""The reason of a failure of which only the lack of legs is known."""

LOST_PATIENCE: Final = 2.0
"""The poll interval in seconds for a tunnel that was up. Two checks without a leg start a probe."""

log = logging.getLogger(__name__)


class PortalOpening:
    """What is open outside the tunnel for a captive portal, and until when.

    ``set_openings`` is called with the openings that the next change must apply, ``expired`` at the end.
    """

    def __init__(
        self,
        set_openings: Callable[[tuple[Opening, ...]], None],
        expired: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._set_openings = set_openings
        self._expired = expired
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def open(self, seconds: float) -> None:
        """Open for ``seconds``, from the next change on."""
        self.close()
        self._timer = self._loop.call_later(seconds, self._time_is_over)
        self._set_openings(OPENINGS)

    def close(self) -> None:
        """Close, with the next change or check of the table."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._set_openings(())

    def _time_is_over(self) -> None:
        self.close()
        self._expired()


def log_portal(portal: Portal) -> None:
    """Log the portal. The target of its redirect is a destination, which is only logged at level debug."""
    log.warning("a captive portal stands in the way", extra={"private": {"portal": portal.host}})


async def watch_for_portal(
    watch: PortalWatch, current: Callable[[], TunnelPort | None], note: Callable[[str], None]
) -> None:
    """Call ``note`` if a portal is why the tunnel has lost its legs (e.g. the host woke up in a hotel)."""
    suspected: TunnelPort | None = None
    told: Portal | None = None
    while True:
        await asyncio.sleep(LOST_PATIENCE)
        tunnel = current()
        if tunnel is None or not tunnel.is_cut_off or tunnel is not suspected:
            suspected, told = (tunnel, None) if tunnel is not None and tunnel.is_cut_off else (None, None)
            continue
        portal = await watch.check(tunnel.profile, LOST, tunnel.resolve)
        if portal is None or portal == told or current() is not tunnel or not tunnel.is_cut_off:
            continue
        told = portal
        log_portal(portal)
        note(portal.sentence("", is_blocked=True, goes_on=True))
