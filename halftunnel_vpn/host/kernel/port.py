"""The interface to the kernel: netlink, the nft table and the settings. It has two implementations.

:class:`RealKernel` uses the kernel of this network namespace. ``fake.py`` has the one for tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from halftunnel_vpn.host.kernel import inbound, nft
from halftunnel_vpn.host.kernel.netlink import Link, with_kernel
from halftunnel_vpn.host.kernel.routes import Route, Rule, Uplink
from halftunnel_vpn.host.kernel.sysctls import Sysctls
from halftunnel_vpn.host.preflight import device_exists

_Result = TypeVar("_Result")


class NetlinkPort(Protocol):
    """Links, addresses, rules and routes; described in ``netlink.Kernel``."""

    def link(self, name: str) -> Link | None: ...
    def set_mtu(self, index: int, mtu: int) -> None: ...
    def set_up(self, index: int, *, up: bool) -> None: ...
    def add_address(self, index: int, text: str) -> None: ...
    def remove_address(self, index: int, text: str) -> None: ...
    def rules(self) -> set[Rule]: ...
    def add_rules(self, rules: Sequence[Rule]) -> None: ...
    def remove_rules(self, rules: Sequence[Rule]) -> None: ...
    def routes(self, tables: Iterable[int]) -> set[Route]: ...
    def add_route(self, route: Route, index: int) -> None: ...
    def remove_route(self, route: Route) -> None: ...
    def uplinks(self, tun: str) -> tuple[Uplink, ...]: ...


class KernelPort(Protocol):
    """What ``Host`` reads and changes of a kernel. Calls raise HostError with one sentence."""

    @property
    def sysctls(self) -> Sysctls:
        """The kernel settings of this network namespace."""

    def netlink(self, work: Callable[[NetlinkPort], _Result]) -> _Result:
        """Call ``work`` with access to links, rules and routes; return its result."""

    def replace_table(self, text: str) -> None:
        """Install our whole nft table in one transaction. ``text`` comes from ``nft.render``."""

    def table(self) -> str | None:
        """Return our nft table as the kernel lists it; None if there is none."""

    def remove_table(self) -> None:
        """Remove our nft table if it exists."""

    def has_device(self, name: str) -> bool:
        """Return whether a network device of that name exists."""


class RealKernel:
    """The kernel of this network namespace."""

    def __init__(self) -> None:
        self.sysctls = Sysctls()

    def netlink(self, work: Callable[[NetlinkPort], _Result]) -> _Result:
        """See KernelPort."""
        return with_kernel(work)

    def replace_table(self, text: str) -> None:
        """See KernelPort. The same transaction adds the connections that the table must list by address."""
        nft.replace(text + (inbound.elements() if "inbound_tcp4" in text else ""))

    def table(self) -> str | None:
        """See KernelPort."""
        return nft.listing()

    def remove_table(self) -> None:
        """See KernelPort."""
        nft.remove()

    def has_device(self, name: str) -> bool:
        """See KernelPort."""
        return device_exists(name)
