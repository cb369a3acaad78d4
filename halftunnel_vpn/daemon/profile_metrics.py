"""The metrics of the daemon where the profile that is up wants them: ``[metrics] listen``."""

from __future__ import annotations

import logging

from halftunnel_vpn.client.supervisor.machine import Machine
from halftunnel_vpn.config.net import Endpoint
from halftunnel_vpn.control.control_service import ControlService, Routes
from halftunnel_vpn.control.ring import MAX_WAIT
from halftunnel_vpn.errors import HostError

log = logging.getLogger(__name__)


class ProfileMetrics:
    """Serves ``routes`` where the active profile says, and nowhere while none is active."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._service: ControlService | None = None
        self._listens: Endpoint | None = None

    async def follow(self, machine: Machine) -> None:
        """Serve as the profile of each state wants it, until cancelled."""
        since = 0
        try:
            while True:
                target = machine.state.target
                await self._serve(None if target is None else target.profile.metrics.listen)
                for event in await machine.events(since, MAX_WAIT):
                    since = event["serial"]
        finally:
            await self._close()

    async def _serve(self, listen: Endpoint | None) -> None:
        if listen == self._listens:
            return
        await self._close()
        self._listens = listen
        if listen is None:
            return
        self._service = ControlService(self._routes)
        try:
            await self._service.serve_tcp(str(listen.host), listen.port)
        except HostError as error:
            log.warning("the profile's [metrics] listen has no effect: %s", error)

    async def _close(self) -> None:
        service, self._service = self._service, None
        if service is not None:
            await service.close()
