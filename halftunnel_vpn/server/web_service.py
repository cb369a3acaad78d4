"""The web page of a running exit: its parts, and where it listens."""

from __future__ import annotations

from halftunnel_vpn.config.net import Endpoint
from halftunnel_vpn.control.control_service import ControlService
from halftunnel_vpn.control.exit_routes import ExitPort
from halftunnel_vpn.control.web.live_feed import LiveFeed
from halftunnel_vpn.control.web.login import Login
from halftunnel_vpn.control.web.page_routes import MAX_WEB_BODY, PageContext, page_policy, page_routes
from halftunnel_vpn.control.web.request_guard import is_loopback
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.server.accounting.rate_history import STEP, RateHistory
from halftunnel_vpn.server.exit import Exit
from halftunnel_vpn.transport.driver import Driver


class WebService:
    """Serves the page until :meth:`close`. Raises HostError when its files are not there.

    Dropped: ``web-`` and a reason of ``PageContext``, of ``ServicePolicy`` or of ``LiveFeed``.
    """

    def __init__(self, exit_: Exit, administration: ExitPort, login: Login, driver: Driver) -> None:
        self._exit = exit_
        self._clock = driver.clock
        self._history = RateHistory(driver.clock())
        self._feed = LiveFeed(administration.clients, driver.clock, self._drop)
        self._sampling = driver.wheel.timer(self._sample)
        context = PageContext(administration, self._history, login, self._feed, driver.clock, self._drop)
        routes = page_routes(context)
        policy = page_policy(context, routes)
        self._service = ControlService(routes, max_body=MAX_WEB_BODY, policy=policy)

    async def serve(self, place: Endpoint | str, group: int | None) -> None:
        """Listen at a loopback address, or at a Unix socket for its owner and ``group``. Raises HostError."""
        if isinstance(place, str):
            await self._service.serve_unix(place, group=group)
        elif is_loopback(place.host):
            await self._service.serve_tcp(place.host, place.port)
        else:
            raise HostError(f"[web] listen {place.host} is not a loopback address; write 127.0.0.1 or [::1]")
        self._sample(self._clock())

    async def run(self) -> None:
        """Keep open pages up to date. It does not return."""
        await self._feed.run()

    async def close(self) -> None:
        """Stop listening, and close every connection."""
        self._sampling.cancel()
        await self._service.close()

    def _sample(self, now: float) -> None:
        self._sampling.arm(now + STEP)
        self._history.sample(
            ((client, meter.sent, meter.received) for client, meter in self._exit.nat.meters), now
        )

    def _drop(self, reason: str) -> None:
        self._exit.counters.drop(f"web-{reason}")
