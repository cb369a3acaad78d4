"""The supervisor's one way to the host: the policy while no tunnel has its own table, and its fake."""

from __future__ import annotations

from typing import Protocol

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.firewall import TrafficPolicy


class PolicyPort(Protocol):
    """What may leave this host while there is no tunnel. Every call may raise HostError, one sentence."""

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

    async def clean_up(self, after: TrafficPolicy | None) -> list[str]:
        """Undo what tunnels that were killed left; return their devices. ``after`` holds without a gap."""
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

    async def clean_up(self, after: TrafficPolicy | None) -> list[str]:
        """Nothing was left."""
        return []
