"""Captive portals, as the daemon meets them: what is opened for one, and who looks out behind a tunnel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.client.captive_portal import Portal, PortalWatch
from halftunnel_vpn.client.tamper_watch import Mender
from halftunnel_vpn.client.tunnel import Tunnel
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.daemon.enforcement import Enforcement
from halftunnel_vpn.daemon.machine import Machine
from halftunnel_vpn.errors import HalfTunnelError, RoadError
from halftunnel_vpn.host.firewall import Opening

OPENINGS: Final = (
    Opening(protocol="tcp", ports=(53, 80, 443, 8080)),
    Opening(protocol="udp", ports=(53,)),
)
"""What a captive portal needs: names, and its web pages."""

LOST: Final = "direction-lost"
"""The reason of a failure of which nothing is known but that there are no legs."""

LOST_PATIENCE: Final = 2.0
"""Seconds between two looks at a tunnel that was up: without a leg twice, and a portal is looked for."""

log = logging.getLogger(__name__)


class PortalOpening:
    """What is open outside the tunnel for a captive portal, and until when."""

    def __init__(self, enforcement: Enforcement, mender: Mender, loop: asyncio.AbstractEventLoop) -> None:
        self._enforcement = enforcement
        self._mender = mender
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is, or is meant to be from the next change on."""
        return self._timer is not None

    def open(self, seconds: float) -> None:
        """From the next change on, for so long."""
        self._timer = self._loop.call_later(seconds, self._time_is_over)
        self._enforcement.open(OPENINGS)

    def close(self) -> None:
        """From the next change on, or the next look at the table."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._enforcement.open(())

    def _time_is_over(self) -> None:
        self.close()
        self._mender.wake()


async def look(
    watch: PortalWatch, profile: ClientProfile, failure: HalfTunnelError, woken: asyncio.Event
) -> Portal | None:
    """The captive portal because of which the tunnel has failed; not once ``woken``: no command waits."""
    reason = failure.reason if isinstance(failure, RoadError) else ""
    looking = asyncio.ensure_future(watch.look(profile, reason))
    waking = asyncio.ensure_future(woken.wait())
    try:
        await asyncio.wait((looking, waking), return_when=asyncio.FIRST_COMPLETED)
        return looking.result() if looking.done() else None
    finally:
        looking.cancel()
        waking.cancel()
        await asyncio.gather(looking, waking, return_exceptions=True)


def log_portal(portal: Portal) -> None:
    """Where it sends to is a destination, which the log names at level debug alone."""
    log.warning("a captive portal stands in the way", extra={"private": {"portal": portal.host}})


async def watch_for_portal(
    watch: PortalWatch, machine: Machine, current: Callable[[], Tunnel | None]
) -> None:
    """For ever: tell when a portal is why the tunnel has lost its legs (the host has woken up in a hotel)."""
    suspected: Tunnel | None = None
    told: Portal | None = None
    while True:
        await asyncio.sleep(LOST_PATIENCE)
        tunnel = current()
        if tunnel is None or not tunnel.is_cut_off or tunnel is not suspected:
            suspected, told = (tunnel, None) if tunnel is not None and tunnel.is_cut_off else (None, None)
            continue
        portal = await watch.look(tunnel.profile, LOST, tunnel.resolve)
        if portal is None or portal == told or current() is not tunnel or not tunnel.is_cut_off:
            continue
        if machine.state.name == "reconnecting":
            told = portal
            log_portal(portal)
            machine.note(portal.sentence("", is_shut=True, goes_on=True))
