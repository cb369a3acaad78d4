"""A tunnel as the supervisor sees it, and a fake of it without device, legs and kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.control.status_schema import ProtectionStatus, Status, TunnelState
from halftunnel_vpn.errors import HalfTunnelError, HostError
from halftunnel_vpn.transport.connect import Resolver, SocketAddress


class TunnelPort(Protocol):
    """A tunnel as the supervisor sees it (``client/tunnel.py``)."""

    @property
    def profile(self) -> ClientProfile:
        """What it was made from."""
        ...

    @property
    def phase(self) -> TunnelState:
        """``connecting``, ``connected``, ``reconnecting`` or ``disconnecting``."""
        ...

    @property
    def is_cut_off(self) -> bool:
        """Whether it was up, and no leg of either direction is left."""
        ...

    @property
    def resolve(self) -> Resolver:
        """Finds the roads' hosts outside the tunnel."""
        ...

    async def run(self) -> None:
        """Up until :meth:`stop`. Raises a HalfTunnelError when it does not come up, or cannot go on."""
        ...

    def stop(self) -> None:
        """Have :meth:`run` put everything back and return."""
        ...

    def reconnect(self) -> None:
        """Replace every leg at once."""
        ...

    async def adopt_program(self, pid: int, programs: str) -> None:
        """Have a process and its children go outside (``excluded``) or inside (``only``), or HostError."""
        ...

    def status(self) -> Status:
        """As ``control/status_schema.py`` describes it."""
        ...

    def flow_counts(self) -> dict[str, int]:
        """Flows that are open now, by kind."""
        ...


class FakeTunnel:
    """A TunnelPort that does what a test says: :meth:`become` a phase, :meth:`fail`."""

    def __init__(self, profile: ClientProfile, changed: Callable[[], None]) -> None:
        self.profile = profile
        self.phase = TunnelState.CONNECTING
        self.is_cut_off = False
        self.reconnects = 0
        self._changed = changed
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_up(self) -> bool:
        """Whether it was up, and has not ended."""
        return self.phase is not TunnelState.CONNECTING and not self._over.done()

    def become(self, phase: TunnelState) -> None:
        """Go to a phase, and report it."""
        self.phase = phase
        self._changed()

    def fail(self, failure: HalfTunnelError) -> None:
        """End with a failure, unless it has ended."""
        if not self._over.done():
            self._over.set_exception(failure)

    async def run(self) -> None:
        """Last until :meth:`stop` or :meth:`fail`."""
        await self._over

    def stop(self) -> None:
        """End."""
        if not self._over.done():
            self._over.set_result(None)

    def reconnect(self) -> None:
        """Count it."""
        self.reconnects += 1

    async def adopt_program(self, pid: int, programs: str) -> None:
        """Refuse: there are no programs here."""
        raise HostError("The tunnel is not up: run `htvpn up` first.")

    async def resolve(self, host: str, port: int) -> list[SocketAddress]:
        """Find nothing."""
        return []

    def status(self) -> Status:
        """Return the least there is."""
        return Status(
            version="0",
            state=self.phase,
            since=0.0,
            sentence=None,
            profile=self.profile.name,
            pid=0,
            uptime=0.0,
            device=self.profile.tun.name,
            session=0,
            round_trip=None,
            lost=[],
            flows=self.flow_counts(),
            protection=ProtectionStatus(kill_switch="off", active=False, verified=False, inbound=True),
            dropped={},
        )

    def flow_counts(self) -> dict[str, int]:
        """No flows."""
        return {"tcp": 0, "udp": 0, "icmp": 0}
