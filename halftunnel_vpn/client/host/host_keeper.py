"""The event loop's owner of the host: what is desired, one change after the other, and the repair loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from halftunnel_vpn.client.host.serial_thread import SerialThread
from halftunnel_vpn.client.host.tamper_watch import Mender
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.host.host import Host
from halftunnel_vpn.host.host_state import HostState
from halftunnel_vpn.host.kernel.desired import Desired
from halftunnel_vpn.host.kernel.traffic_policy import TrafficPolicy
from halftunnel_vpn.host.preflight import device_exists, preflight, preflight_host
from halftunnel_vpn.tun.device import TunDevice

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


class HostKeeper:
    """Combines the policy that a state picks and the tunnel that is up into one ``Desired``.

    Implements ``HostPort`` for the tunnel. Each change sets what is desired at once, and applies it in its
    turn; what fails is tried again by :meth:`run`. Calls raise HostError.
    """

    def __init__(
        self,
        host: Host,
        counters: Counters,
        *,
        open_device: Callable[..., TunDevice] = TunDevice.open,
        has_device: Callable[[str], bool] = device_exists,
        in_turn: SerialThread | None = None,
    ) -> None:
        self._host = host
        self._counters = counters
        self._open_device = open_device
        self._has_device = has_device
        self._in_turn = in_turn or SerialThread()
        self._mender = Mender(self.mend, counters)
        self._policy: TrafficPolicy | None = None
        self._tunnel: HostState | None = None
        self._reopen: Callable[[], bool] | None = None
        self._warnings: frozenset[str] = frozenset()
        """Those of the last apply; each is logged when it comes up, and not at every apply."""

    @classmethod
    def of(cls, state_dir: Path, counters: Counters) -> HostKeeper:
        """Return the keeper of this process's host."""
        return cls(Host(state_dir), counters)

    @property
    def desired(self) -> Desired:
        """What the host is to be now."""
        return Desired(self._tunnel, self._policy)

    @property
    def is_verified(self) -> bool:
        """Whether what is desired has been applied and read back."""
        return self._host.is_applied and self._host.desired == self.desired

    # --- the policy ------------------------------------------------------------------------------

    def preflight(self) -> None:
        """Raise HostError when this host cannot have a tunnel at all."""
        preflight_host()

    def remembered(self) -> TrafficPolicy | None:
        """Return what an earlier process left in place. Raises HostError when its file is spoilt."""
        return self._host.remembered()

    def intend(self, policy: TrafficPolicy | None) -> None:
        """Have the next change or check of the host apply this policy."""
        self._policy = policy

    async def enforce(self, policy: TrafficPolicy | None) -> None:
        """Apply ``policy`` (None: everything may leave), with the tunnel as it is. Raises HostError."""
        self._policy = policy
        await self._apply()

    async def clean_up(self) -> list[str]:
        """Undo what killed tunnels left, the policy in force meanwhile; return their devices."""
        recovered = await self._in_turn(lambda: self._host.recover(self.desired.policy))
        for device in recovered:
            log.warning("restored what an earlier tunnel had left on this host: %s", device)
        return recovered

    # --- the tunnel ------------------------------------------------------------------------------

    @property
    def tunnel(self) -> HostState | None:
        """See HostPort."""
        return self._tunnel

    @property
    def resolver_kind(self) -> str | None:
        """See HostPort."""
        return self._host.resolver_kind

    async def prepare(self, device: str) -> None:
        """See HostPort."""
        await self.clean_up()
        preflight(device)

    def open_device(self, name: str, *, mtu: int, counters: Counters) -> TunDevice:
        """See HostPort."""
        return self._open_device(name, mtu=mtu, counters=counters)

    async def enter(self, tunnel: HostState, reopen: Callable[[], bool]) -> None:
        """See HostPort."""
        self._tunnel, self._reopen = tunnel, reopen
        await self._apply()

    async def leave(self) -> None:
        """See HostPort."""
        if self._tunnel is None:
            return
        self._tunnel = self._reopen = None
        await self._apply()

    def check(self) -> None:
        """See HostPort."""
        self._mender.wake()

    async def ask(self, work: Callable[[Host], _Result]) -> _Result:
        """See HostPort."""
        return await self._in_turn(lambda: work(self._host))

    # --- repair ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Check the host after each change of the kernel's, and every few seconds, until cancelled."""
        await self._mender.run()

    async def mend(self) -> list[str]:
        """Put right what somebody else has changed; return what that was, in sentences. Raises HostError."""
        if not self.is_verified:
            await self._apply()
        tunnel = self._tunnel
        if tunnel is not None and self._reopen is not None and not self._has_device(tunnel.tun):
            self._counters.count("device-reopened")
            if self._reopen():
                await self._apply()  # what resolved knew of the device went with it
            return [f"The device {tunnel.tun} is missing."]
        return await self._in_turn(self._host.mend)

    async def _apply(self) -> None:
        """Apply what is desired when the turn has come."""
        warnings = await self._in_turn(lambda: self._host.apply(self.desired))
        for warning in warnings:
            if warning not in self._warnings:
                log.warning("%s", warning)
        self._warnings = frozenset(warnings)
