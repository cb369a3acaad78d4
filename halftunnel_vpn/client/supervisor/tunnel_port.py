"""The interface between supervisor and tunnel, and a fake without device, legs and kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from halftunnel_vpn.client.exits.exit_ranking import ExitChoice
from halftunnel_vpn.client.tunnel_numbers import NOTHING, TunnelNumbers
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.control.status_schema import ExitOverview, ProtectionStatus, Status, TunnelState
from halftunnel_vpn.errors import HalfTunnelError, HostError
from halftunnel_vpn.flow.flow_ends import FlowEnds
from halftunnel_vpn.transport.connect import Resolver, SocketAddress


class TunnelPort(Protocol):
    """A tunnel as the supervisor uses it (``client/tunnel.py``)."""

    @property
    def profile(self) -> ClientProfile:
        """The profile from which it was made."""
        ...

    @property
    def phase(self) -> TunnelState:
        """``connecting``, ``connected``, ``reconnecting`` or ``disconnecting``."""
        ...

    @property
    def is_cut_off(self) -> bool:
        """Whether it was up and no leg of either direction is left."""
        ...

    @property
    def resolve(self) -> Resolver:
        """Resolves the exit's names outside the tunnel."""
        ...

    async def run(self) -> None:
        """Run until :meth:`stop`. Raises a HalfTunnelError if it does not come up, or cannot go on."""
        ...

    def stop(self) -> None:
        """Make :meth:`run` restore the host and return."""
        ...

    def reconnect(self) -> None:
        """Replace every leg at once."""
        ...

    def choose(self, choice: ExitChoice) -> asyncio.Future[str]:
        """Use another exit. The result is the name of the exit in use, or a HostError."""
        ...

    async def measure_exits(self) -> list[ExitOverview]:
        """Measure the round trip of every exit, and return what is known of each."""
        ...

    async def adopt_program(self, pid: int, programs: str) -> None:
        """Put a process and its children outside (``excluded``) or inside (``only``). Raises HostError."""
        ...

    def record(self, seconds: float) -> str:
        """Write down every record for so many seconds; return the file. Raises HostError."""
        ...

    def open_flows(self, limit: int) -> list[FlowEnds]:
        """Return the ends of at most ``limit`` open flows."""
        ...

    def status(self) -> Status:
        """Return the status as ``control/status_schema.py`` describes it."""
        ...

    def numbers(self) -> TunnelNumbers:
        """What the metrics say of it."""
        ...


class FakeTunnel:
    """A TunnelPort that a test controls: :meth:`become` a phase, :meth:`fail`."""

    def __init__(self, profile: ClientProfile, changed: Callable[[], None]) -> None:
        self.profile = profile
        self.phase = TunnelState.CONNECTING
        self.is_cut_off = False
        self.reconnects = 0
        self.flows: list[FlowEnds] = []
        self.choices: list[ExitChoice] = []
        self.outcome: asyncio.Future[str] | None = None
        self._changed = changed
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_up(self) -> bool:
        """Whether it was up and has not ended."""
        return self.phase is not TunnelState.CONNECTING and not self._over.done()

    def become(self, phase: TunnelState) -> None:
        """Change to a phase, and report it."""
        self.phase = phase
        self._changed()

    def fail(self, failure: HalfTunnelError) -> None:
        """End with a failure, unless it has ended."""
        if not self._over.done():
            self._over.set_exception(failure)

    async def run(self) -> None:
        """Run until :meth:`stop` or :meth:`fail`."""
        await self._over

    def stop(self) -> None:
        """End."""
        if not self._over.done():
            self._over.set_result(None)

    def reconnect(self) -> None:
        """Count the call."""
        self.reconnects += 1

    def choose(self, choice: ExitChoice) -> asyncio.Future[str]:
        """Note the choice; its outcome is decided by the test."""
        self.choices.append(choice)
        self.outcome = asyncio.get_running_loop().create_future()
        return self.outcome

    async def measure_exits(self) -> list[ExitOverview]:
        """Find nothing."""
        return []

    async def adopt_program(self, pid: int, programs: str) -> None:
        """Refuse: there are no programs here."""
        raise HostError("The tunnel is not up: run `htvpn up` first.")

    def record(self, seconds: float) -> str:
        """Refuse: there are no records here."""
        raise HostError("The tunnel is not up: run `htvpn up` first.")

    async def resolve(self, host: str, port: int) -> list[SocketAddress]:
        """Find nothing."""
        return []

    def open_flows(self, limit: int) -> list[FlowEnds]:
        """Return those that the test has set."""
        return self.flows[:limit]

    def status(self) -> Status:
        """Return a minimal status."""
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
            flows={"tcp": 0, "udp": 0, "icmp": 0},
            protection=ProtectionStatus(kill_switch="off", active=False, verified=False, inbound=True),
            dropped={},
        )

    def numbers(self) -> TunnelNumbers:
        """Nothing."""
        return NOTHING
