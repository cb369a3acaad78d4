"""The event loop's owner of the host: the desired state, one change at a time, and the repair loop."""

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
from halftunnel_vpn.host.record.leftovers import has_records
from halftunnel_vpn.tun.device import TunDevice

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


class HostKeeper:
    """Combines the policy of the current state and the tunnel into one ``Desired``.

    Implements ``HostPort`` for the tunnel. Each change sets the desired state at once, and applies it when
    earlier changes are done. :meth:`run` repeats a failed change. Calls raise HostError.
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
        self._changes_under_way = 0
        self._warnings: frozenset[str] = frozenset()
        """The warnings of the last apply. Each is logged when it appears, not at every apply."""

    @classmethod
    def of(cls, state_dir: Path, counters: Counters) -> HostKeeper:
        """Return the keeper of the host of this process."""
        return cls(Host(state_dir), counters)

    @property
    def desired(self) -> Desired:
        """The present desired state of the host."""
        return Desired(self._tunnel, self._policy)

    @property
    def is_verified(self) -> bool:
        """Whether the desired state has been applied and verified."""
        return self._host.is_applied and self._host.desired == self.desired

    @property
    def is_clear(self) -> bool:
        """Whether nothing of ours is on the host, or a change under way removes it."""
        return self.desired == Desired() and (self.is_verified or self._changes_under_way > 0)

    @property
    def has_records(self) -> bool:
        """See HostPort."""
        return has_records(self._host.state_dir)

    # --- the policy ------------------------------------------------------------------------------

    def preflight(self) -> None:
        """Raise HostError if no tunnel is possible on this host."""
        preflight_host()

    def remembered(self) -> TrafficPolicy | None:
        """Return the policy that an earlier process left in force. Raises HostError for a corrupt file."""
        return self._host.remembered()

    def intend(self, policy: TrafficPolicy | None) -> None:
        """Set the policy for the next change or check of the host."""
        self._policy = policy

    async def enforce(self, policy: TrafficPolicy | None) -> None:
        """Apply ``policy`` (None: everything may leave); the tunnel stays as it is. Raises HostError."""
        self._policy = policy
        await self._apply()

    async def clean_up(self) -> list[str]:
        """Undo what killed tunnels left, while the policy stays in force; return their devices."""
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

    def preflight_for(self, device: str) -> None:
        """See HostPort."""
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
        """Check the host after each change of the kernel, and every few seconds, until cancelled."""
        await self._mender.run()

    async def mend(self) -> list[str]:
        """Repair what other programs have changed; return the differences, as sentences. Raises HostError."""
        if not self.is_verified:
            await self._apply(only_unverified=True)
        tunnel = self._tunnel
        if tunnel is not None and self._reopen is not None and not self._has_device(tunnel.tun):
            self._counters.count("device-reopened")
            if self._reopen():
                await self._apply()  # the settings of systemd-resolved were lost with the device
            return [f"The device {tunnel.tun} is missing."]
        return await self._in_turn(self._host.mend)

    async def _apply(self, *, only_unverified: bool = False) -> None:
        """Apply the desired state when earlier work is done; maybe not if that has applied it."""

        def apply() -> list[str] | None:
            return None if only_unverified and self.is_verified else self._host.apply(self.desired)

        self._changes_under_way += 1
        try:
            warnings = await self._in_turn(apply)
        finally:
            self._changes_under_way -= 1
        if warnings is None:
            return
        for warning in warnings:
            if warning not in self._warnings:
                log.warning("%s", warning)
        self._warnings = frozenset(warnings)
