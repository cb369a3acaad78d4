"""The interface between supervisor and host: the policy for traffic outside the tunnel; and a fake."""

from __future__ import annotations

import asyncio
from typing import Protocol

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel.traffic_policy import TrafficPolicy


class PolicyPort(Protocol):
    """The policy for traffic outside the tunnel on this host (``client/host/host_keeper.py``).

    Every call may raise HostError with one sentence.
    """

    @property
    def is_verified(self) -> bool:
        """Whether the last enforced policy was verified in the kernel."""
        ...

    @property
    def is_clear(self) -> bool:
        """Whether no policy and no tunnel of ours is on the host, or a change under way removes them.

        Who began that change learns whether it fails.
        """
        ...

    @property
    def has_records(self) -> bool:
        """Whether the state directory says that a tunnel or a policy is on the host, or was left there."""
        ...

    def preflight(self) -> None:
        """Raise HostError if no tunnel is possible on this host."""
        ...

    def remembered(self) -> TrafficPolicy | None:
        """Return the policy that an earlier process left in force."""
        ...

    def intend(self, policy: TrafficPolicy | None) -> None:
        """Set the policy for the next :meth:`mend`."""
        ...

    async def enforce(self, policy: TrafficPolicy | None) -> None:
        """Apply ``policy`` (None removes it); it is persisted first."""
        ...

    async def mend(self) -> list[str]:
        """Apply the policy again if the kernel does not hold it; return the differences, as sentences."""
        ...

    async def clean_up(self) -> list[str]:
        """Undo what killed tunnels left; return their devices. The policy holds without a gap."""
        ...

    async def run(self) -> None:
        """Check and repair the host after each change and each :meth:`check`, until cancelled."""
        ...

    def check(self) -> None:
        """Make :meth:`run` check the host soon."""
        ...


class FakePolicy:
    """A PolicyPort without a kernel. It keeps the policies and can be made to fail."""

    def __init__(self, left: TrafficPolicy | None = None) -> None:
        self.in_place: TrafficPolicy | None = left
        """The policy that the kernel would hold now."""
        self.history: list[TrafficPolicy | None] = []
        """Every policy that was applied, in order."""
        self.problem: str | None = None
        """The sentence with which every change fails."""
        self.is_verified = False
        self.has_records = left is not None
        self._intended: TrafficPolicy | None = left
        self._woken = asyncio.Event()

    @property
    def is_clear(self) -> bool:
        """Whether no policy was applied last."""
        return bool(self.history) and self.in_place is None

    def preflight(self) -> None:
        """Raise the problem if there is one."""
        if self.problem is not None:
            raise HostError(self.problem)

    def remembered(self) -> TrafficPolicy | None:
        """Return the policy in force."""
        return self.in_place

    def intend(self, policy: TrafficPolicy | None) -> None:
        """Keep ``policy`` for :meth:`mend`."""
        self._intended = policy

    async def enforce(self, policy: TrafficPolicy | None) -> None:
        """Apply ``policy``, or raise the problem."""
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
        """Return nothing: no tunnel was killed."""
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
