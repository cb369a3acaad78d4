"""The policy that holds while no tunnel's own table does: applied, read back, applied again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from halftunnel_vpn.host.firewall import TrafficPolicy
from halftunnel_vpn.host.network import HostNetwork
from halftunnel_vpn.host.preflight import preflight_host
from halftunnel_vpn.host.protection import Protection


class Guard:
    """Implements ``PolicyPort`` with our nft table and routing rules. One change after the other."""

    def __init__(self, state_dir: Path) -> None:
        self.is_verified = False
        """Whether the table was read back, and holds what it is meant to."""
        self._state_dir = state_dir
        self._protection = Protection(state_dir)
        self._intended: TrafficPolicy | None = None
        self._turn = asyncio.Lock()

    def preflight(self) -> None:
        """Raise HostError when this host cannot have a tunnel at all."""
        preflight_host()

    def remembered(self) -> TrafficPolicy | None:
        """Return what an earlier process left in place. Raises HostError when the file is spoilt."""
        return self._protection.remembered()

    def intend(self, policy: TrafficPolicy | None) -> None:
        """Have the next :meth:`mend` apply this policy."""
        self._intended = policy

    async def enforce(self, policy: TrafficPolicy | None) -> None:
        """Apply ``policy`` (None removes it); it is persisted first. Raises HostError."""
        async with self._turn:
            self._intended = policy
            await asyncio.shield(asyncio.to_thread(self._put, policy))

    async def mend(self) -> list[str]:
        """Apply the policy again if somebody has changed the table; return what that was, in sentences."""
        async with self._turn:
            return await asyncio.shield(asyncio.to_thread(self._mend))

    async def clean_up(self, after: TrafficPolicy | None) -> list[str]:
        """Undo what tunnels that were killed left; return their devices. ``after`` holds without a gap."""
        async with self._turn:
            return await asyncio.shield(
                asyncio.to_thread(HostNetwork.cleanup_leftovers, self._state_dir, after=after)
            )

    def _put(self, policy: TrafficPolicy | None) -> None:
        if policy is not None and self._protection.holds(policy):
            self.is_verified = True
            return
        self.is_verified = False
        if policy is not None:
            self._protection.put(policy)
            self.is_verified = True
        elif self._protection.is_in_place():
            self._protection.lift()

    def _mend(self) -> list[str]:
        policy = self._intended
        if policy is None or self._protection.holds(policy):
            return []
        self._put(policy)
        return ["The kill switch had been changed."]
