"""The supervisor's one way to the host: what may leave outside the tunnel, and a fake of it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel.traffic_policy import TrafficPolicy


class PolicyPort(Protocol):
    """What may leave this host outside the tunnel (``client/host/host_keeper.py``).

    Every call may raise HostError, one sentence.
    """

    @property
    def is_verified(self) -> bool:
        """Whether the policy was read back from the kernel, and is the one that was enforced last."""
        ...

    def preflight(self) -> None:
        """Raise HostError when this host cannot have a tunnel at all."""
        ...

    def remembered(self) -> TrafficPolicy | None:
        """Return what an earlier process left in place."""
        ...

    def intend(self, policy: TrafficPolicy | None) -> None:
        """Have the next :meth:`mend` apply this policy."""
        ...

    async def enforce(self, policy: TrafficPolicy | None) -> None:
        """Apply ``policy`` (None removes it); it is persisted first."""
        ...

    async def mend(self) -> list[str]:
        """Apply the policy again if the kernel does not hold it; return what was mended, in sentences."""
        ...

    async def clean_up(self) -> list[str]:
        """Undo what killed tunnels left; return their devices. The policy holds without a gap."""
        ...

    async def run(self) -> None:
        """Check the host, and mend it, after each change and each :meth:`check`, until cancelled."""
        ...

    def check(self) -> None:
        """Have :meth:`run` check the host soon."""
        ...


class FakePolicy:
    """A PolicyPort without a kernel: it keeps what it was told, and fails on demand."""

    def __init__(self, left: TrafficPolicy | None = None) -> None:
        self.in_place: TrafficPolicy | None = left
        """What the kernel would hold now."""
        self.history: list[TrafficPolicy | None] = []
        """Every policy that was applied, in order."""
        self.problem: str | None = None
        """The sentence with which every change fails now."""
        self.is_verified = False
        self._intended: TrafficPolicy | None = left
        self._woken = asyncio.Event()

    def preflight(self) -> None:
        """Raise the problem, if there is one."""
        if self.problem is not None:
            raise HostError(self.problem)

    def remembered(self) -> TrafficPolicy | None:
        """Return what is in place."""
        return self.in_place

    def intend(self, policy: TrafficPolicy | None) -> None:
        """Keep ``policy`` for :meth:`mend`."""
        self._intended = policy

    async def enforce(self, policy: TrafficPolicy | None) -> None:
        """Have ``policy`` in place, or raise the problem."""
        self._intended = policy
        self.preflight()
        self.in_place, self.is_verified = policy, policy is not None
        self.history.append(policy)

    async def mend(self) -> list[str]:
        """Apply the intended policy again."""
        if self.in_place == self._intended:
            return []
        await self.enforce(self._intended)
        return ["The kill switch had been changed."]

    async def clean_up(self) -> list[str]:
        """Nothing was left."""
        return []

    async def run(self) -> None:
        """Mend after each :meth:`check`."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            await self.mend()

    def check(self) -> None:
        """Wake :meth:`run`."""
        self._woken.set()
