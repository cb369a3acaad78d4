"""What a tunnel needs of the host, as an interface: a device, routes around it, and queries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.host.host import Host
from halftunnel_vpn.host.host_state import HostState
from halftunnel_vpn.tun.device import TunDevice

_Result = TypeVar("_Result")


class HostPort(Protocol):
    """Implemented by ``HostKeeper``. Calls raise HostError with one sentence."""

    @property
    def tunnel(self) -> HostState | None:
        """The tunnel in the desired state of this host."""

    @property
    def resolver_kind(self) -> str | None:
        """The KIND of the resolver backend that is in force; None if there is none."""

    @property
    def has_records(self) -> bool:
        """Whether the state directory says that a tunnel or a policy is on the host, or was left there."""

    def preflight_for(self, device: str) -> None:
        """Check that a tunnel named ``device`` can be brought up, as far as that takes no time."""

    async def prepare(self, device: str) -> None:
        """Undo what killed tunnels left, and check that a tunnel named ``device`` can be brought up."""

    def open_device(self, name: str, *, mtu: int, counters: Counters) -> TunDevice:
        """Open the TUN device."""

    async def enter(self, tunnel: HostState, reopen: Callable[[], bool]) -> None:
        """Send the host's traffic into the tunnel. Call it again to change the state of the same device.

        ``reopen`` opens the device again after a program has removed it, and returns whether that worked.
        :meth:`leave` must be called afterwards, also if this raises.
        """

    async def leave(self) -> None:
        """Remove the tunnel from the host. May be called repeatedly."""

    def check(self) -> None:
        """Check the host soon, and repair differences."""

    async def ask(self, work: Callable[[Host], _Result]) -> _Result:
        """Call ``work`` with the host in a thread, one call at a time; return its result."""
