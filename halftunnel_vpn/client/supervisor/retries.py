"""After a failure: check for a captive portal, and choose the time of the next attempt."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from halftunnel_vpn.client.backoff import Backoff
from halftunnel_vpn.client.legs.handshake_sentences import is_passing
from halftunnel_vpn.client.supervisor.captive_portal import RETRY_DELAY, Portal, PortalWatch
from halftunnel_vpn.client.supervisor.events import Diagnosed, Event, RetryDue
from halftunnel_vpn.client.supervisor.portals import log_portal
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.errors import HalfTunnelError, RoadError

log = logging.getLogger(__name__)


class Retries:
    """One diagnosis and one pause at a time, for the state that requested them. :meth:`cancel` ends both."""

    def __init__(
        self, watch: PortalWatch, loop: asyncio.AbstractEventLoop, post: Callable[[Event], None]
    ) -> None:
        self._watch = watch
        self._loop = loop
        self._post = post
        self._backoff = Backoff(random.random)
        self._diagnosis: asyncio.Task[None] | None = None
        self._pause: asyncio.TimerHandle | None = None

    def forget(self) -> None:
        """Start again with a short pause: after a success, or with another profile."""
        self._backoff.reset()
        self._watch.forget()

    def diagnose(self, state: object, profile: ClientProfile, failure: HalfTunnelError) -> None:
        """Check whether a captive portal caused the failure. :class:`Diagnosed` is posted at the end."""
        self.cancel()
        self._diagnosis = self._loop.create_task(self._diagnose(state, profile, failure))

    def next_delay(self, failure: HalfTunnelError, portal: Portal | None) -> float | None:
        """Return the seconds to the next attempt; None if only a command helps."""
        if not is_passing(failure):
            return None
        delay = self._backoff.next_delay()
        return delay if portal is None else min(delay, RETRY_DELAY)

    def arm(self, state: object, seconds: float) -> None:
        """Post :class:`RetryDue` after ``seconds``."""
        self.cancel()
        self._pause = self._loop.call_later(seconds, self._post, RetryDue(state))

    def cancel(self) -> None:
        """End the diagnosis and the pause."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._diagnosis is not None:
            self._diagnosis.cancel()
            self._diagnosis = None

    async def _diagnose(self, state: object, profile: ClientProfile, failure: HalfTunnelError) -> None:
        portal = None
        reason = failure.reason if isinstance(failure, RoadError) else ""
        try:
            portal = await self._watch.check(profile, reason)
        except Exception as error:  # the failure itself must be reported all the same
            self._loop.call_exception_handler({"message": "the portal probe failed", "exception": error})
        if portal is not None:
            log_portal(portal)
        self._post(Diagnosed(state, failure, portal))
