"""The policy that holds while no tunnel's own table does: put in place, read back, put in place again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from halftunnel_vpn.host.firewall import TrafficPolicy
from halftunnel_vpn.host.protection import Protection


class Guard:
    """Makes our nft table hold one policy at a time. One change after the other; each may raise HostError."""

    def __init__(self, state_dir: Path) -> None:
        self.is_verified = False
        """Whether the table was read back, and holds what it is meant to."""
        self._protection = Protection(state_dir)
        self._intended: TrafficPolicy | None = None
        self._turn = asyncio.Lock()

    def remembered(self) -> TrafficPolicy | None:
        """What an earlier process left in place."""
        return self._protection.remembered()

    def intend(self, policy: TrafficPolicy | None) -> None:
        """What the next look at the table shall find there."""
        self._intended = policy

    async def enforce(self, policy: TrafficPolicy | None) -> None:
        """Have the table hold the policy, or none; on disk before that."""
        async with self._turn:
            self._intended = policy
            await asyncio.shield(asyncio.to_thread(self._put, policy))

    async def mend(self) -> list[str]:
        """Put the policy back if somebody has changed the table; what there was to mend, in sentences."""
        async with self._turn:
            return await asyncio.shield(asyncio.to_thread(self._mend))

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
