"""What a tunnel needs of the host, as an interface: a device, routes around it, and answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.host.host import Host
from halftunnel_vpn.host.host_state import HostState
from halftunnel_vpn.tun.device import TunDevice

_Result = TypeVar("_Result")


class HostPort(Protocol):
    """Implemented by ``HostKeeper``. Calls raise HostError, one sentence."""

    @property
    def tunnel(self) -> HostState | None:
        """The tunnel that this host is to have now."""

    @property
    def resolver_kind(self) -> str | None:
        """What points this host to the tunnel's resolvers: a backend's KIND, None while nothing does."""

    async def prepare(self, device: str) -> None:
        """Undo what killed tunnels left, and check that a tunnel named ``device`` can be brought up."""

    def open_device(self, name: str, *, mtu: int, counters: Counters) -> TunDevice:
        """Open the TUN device."""

    async def enter(self, tunnel: HostState, reopen: Callable[[], bool]) -> None:
        """Send the host's traffic into the tunnel; call it again with another state of the same device.

        ``reopen`` opens the device again when somebody has removed it, and returns whether that worked.
        :meth:`leave` must follow, also when this raises.
        """

    async def leave(self) -> None:
        """Take the tunnel off the host. Repeatable."""

    def check(self) -> None:
        """Compare the host with what is desired soon, and mend it."""

    async def ask(self, work: Callable[[Host], _Result]) -> _Result:
        """Return what ``work`` returns, called with the host in a thread, one at a time."""
