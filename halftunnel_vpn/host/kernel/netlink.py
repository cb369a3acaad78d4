"""Links, addresses, rules and routes of the kernel, read and changed over rtnetlink."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel import route_messages, rtnetlink
from halftunnel_vpn.host.kernel.route_messages import FAMILIES
from halftunnel_vpn.host.kernel.routes import KERNELS_TABLES, LOOPBACK, MAIN_TABLE, Route, Rule, Uplink
from halftunnel_vpn.host.kernel.rtnetlink import Attributes, Message, NetlinkRefusal, RouteSocket

MAX_UPLINKS: Final = 8
"""Devices with a default route whose replies are kept apart. Replies of others follow `main`."""

_Result = TypeVar("_Result")

_LINK: Final = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, changed flags
_ADDRESS: Final = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_WORD: Final = struct.Struct("=I")
_IFLA_MTU: Final = 4
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFA_FLAGS: Final = 8
_IFF_UP: Final = 1
_IFA_F_TEMPORARY: Final = 0x01
_IFA_F_TENTATIVE: Final = 0x40
_NO_WAY: Final = (
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.EACCES,
    errno.EINVAL,
    errno.ENODEV,
    errno.ENOENT,
)

# The kernel's errors about an object that is already gone.
_GONE: Final = (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(frozen=True, slots=True)
class Link:
    """A network device. ``addresses`` are ``ADDRESS/LENGTH`` without link-local ones; ``mtu`` is in bytes."""

    index: int
    mtu: int
    up: bool
    addresses: frozenset[str]


def with_kernel(work: Callable[[Kernel], _Result]) -> _Result:
    """Run ``work`` with a netlink socket and return its result. Raises HostError if the kernel refuses."""
    try:
        with RouteSocket() as route_socket:
            return work(Kernel(route_socket))
    except NetlinkRefusal as refusal:
        raise HostError(f"The kernel refused a change of the network: {refusal}.") from refusal
    except OSError as error:  # e.g. out of descriptors
        reason = error.strerror or "it does not answer"
        raise HostError(f"The kernel cannot be asked about the network now ({reason}).") from error


class Kernel:
    """The kernel's objects of ours, and single changes to them. Removing a missing one does nothing."""

    __slots__ = ("_netlink",)

    def __init__(self, netlink: RouteSocket) -> None:
        self._netlink = netlink

    def link(self, name: str) -> Link | None:
        """Return the device; None if there is none of that name."""
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            return None
        message = self._netlink.get(rtnetlink.GET_LINK, _LINK.pack(0, 0, index, 0, 0), {})
        found = (address for address, _ in self._addresses(index, 0))
        addresses = frozenset(str(item) for item in found if not (item.version == 6 and item.is_link_local))
        mtu = route_messages.number(message.attributes.get(_IFLA_MTU))
        return Link(index, mtu, bool(_LINK.unpack(message.header)[3] & _IFF_UP), addresses)

    def set_mtu(self, index: int, mtu: int) -> None:
        """Set the MTU of a device, in bytes."""
        self._netlink.change(rtnetlink.NEW_LINK, _LINK.pack(0, 0, index, 0, 0), {_IFLA_MTU: _WORD.pack(mtu)})

    def set_up(self, index: int, *, up: bool) -> None:
        """Set a device up or down."""
        flags = _IFF_UP if up else 0
        self._netlink.change(rtnetlink.NEW_LINK, _LINK.pack(0, 0, index, flags, _IFF_UP), {})

    def add_address(self, index: int, text: str) -> None:
        """Add an address, ``ADDRESS/LENGTH``, to the device. It is usable at once."""
        self._netlink.create(rtnetlink.NEW_ADDRESS, *_address_message(index, text))

    def remove_address(self, index: int, text: str) -> None:
        """Remove an address, ``ADDRESS/LENGTH``, from the device."""
        self._remove(rtnetlink.DELETE_ADDRESS, *_address_message(index, text))

    def rules(self) -> set[Rule]:
        """Return our rules of any priority. They are identified by our protocol number."""
        found: set[Rule] = set()
        for version in FAMILIES:
            found.update(
                self._netlink.list(
                    rtnetlink.GET_RULE,
                    route_messages.list_header(version),
                    {},
                    partial(route_messages.read_rule, version=version),
                )
            )
        return found

    def add_rule(self, rule: Rule) -> None:
        """Add a rule that does not exist yet."""
        self._netlink.create(rtnetlink.NEW_RULE, *route_messages.rule_message(rule))

    def remove_rule(self, rule: Rule) -> None:
        """Remove one rule."""
        self._remove(rtnetlink.DELETE_RULE, *route_messages.rule_message(rule))

    def routes(self, tables: Iterable[int]) -> set[Route]:
        """Return our default routes in these tables. The kernel's own tables are never read."""
        found: set[Route] = set()
        for table in set(tables).difference(KERNELS_TABLES):
            for version in FAMILIES:
                found.update(
                    self._routes(
                        version,
                        table,
                        partial(route_messages.read_route, version=version, table=table),
                    )
                )
        return found

    def add_route(self, route: Route, index: int) -> None:
        """Add a route. ``index`` is that of the TUN device, for a route through it."""
        device = index if route.through_tun else 0
        if route.device and not route.through_tun:
            device = socket.if_nametoindex(route.device)
        self._netlink.create(rtnetlink.NEW_ROUTE, *route_messages.route_message(route, device))

    def remove_route(self, route: Route) -> None:
        """Remove one route."""
        self._remove(rtnetlink.DELETE_ROUTE, *route_messages.route_message(route, 0, is_removed=True))

    def uplinks(self, tun: str) -> tuple[Uplink, ...]:
        """Return the devices of the default routes in `main`, at most MAX_UPLINKS; none if only one."""
        gateways: dict[int, dict[int, tuple[int, str]]] = {}
        for version in FAMILIES:
            routes = self._routes(
                version,
                MAIN_TABLE,
                partial(route_messages.default_hops, version=version, table=MAIN_TABLE),
            )
            for metric, index, gateway in (hop for hops in routes for hop in hops):
                best = gateways.setdefault(index, {}).get(version)
                if best is None or metric < best[0]:
                    gateways[index][version] = metric, gateway
        found = []
        for index, ways in sorted(gateways.items()):
            device = _name_of(index)
            if device not in (None, tun, LOOPBACK):
                pairs = tuple((version, gateway) for version, (_, gateway) in sorted(ways.items()))
                found.append(Uplink(index, str(device), pairs))
        return tuple(found[:MAX_UPLINKS]) if len(found) > 1 else ()

    def next_step(self, destination: str, mark: int) -> tuple[str, str] | None:
        """Return device and gateway ("" on link) to an address for packets with ``mark``; None if none."""
        try:
            message = self._netlink.get(
                rtnetlink.GET_ROUTE, *route_messages.lookup_message(destination, mark)
            )
        except NetlinkRefusal as refusal:
            if refusal.code not in _NO_WAY:
                raise
            return None
        device = _name_of(route_messages.output_device(message))
        if device is None or device == LOOPBACK:
            return None
        return device, route_messages.gateway_of(message.attributes)

    def lasting_addresses(self, device: str, version: int) -> frozenset[str]:
        """Return the device's addresses of one IP version, except link-local and temporary (RFC 8981)."""
        try:
            index = socket.if_nametoindex(device)
        except OSError:
            return frozenset()
        found = set()
        for item, flags in self._addresses(index, FAMILIES[version]):
            # IPv6 flags temporary addresses so; for IPv4 the same bit means a second address of a network.
            rotates = version == 6 and flags & _IFA_F_TEMPORARY
            if not (rotates or flags & _IFA_F_TENTATIVE or item.is_link_local):
                found.add(str(item.ip))
        return frozenset(found)

    def _addresses(
        self, index: int, family: int
    ) -> list[tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, int]]:
        """Return address and flags of each address of a device; ``family`` 0: of both IP versions."""

        def read(
            message: Message,
        ) -> tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, int] | None:
            of_family, length, flags, _, device = _ADDRESS.unpack(message.header)
            value = message.attributes.get(_IFA_LOCAL) or message.attributes.get(_IFA_ADDRESS)
            is_wanted = device == index and (family or of_family) == of_family
            if not is_wanted or value is None or len(value) not in (4, 16):
                return None
            all_flags = route_messages.number(message.attributes.get(_IFA_FLAGS)) or flags
            return ipaddress.ip_interface((value, length)), all_flags

        header = _ADDRESS.pack(family, 0, 0, 0, index)
        return self._netlink.list(rtnetlink.GET_ADDRESS, header, {}, read)

    def _routes(self, version: int, table: int, read: Callable[[Message], _Result | None]) -> list[_Result]:
        header = route_messages.list_header(version, table)
        return self._netlink.list(rtnetlink.GET_ROUTE, header, route_messages.table_filter(table), read)

    def _remove(self, kind: int, header: bytes, attributes: Attributes) -> None:
        try:
            self._netlink.change(kind, header, attributes)
        except NetlinkRefusal as refusal:
            if refusal.code not in _GONE:
                raise


def _address_message(index: int, text: str) -> tuple[bytes, Attributes]:
    interface = ipaddress.ip_interface(text)
    header = _ADDRESS.pack(FAMILIES[interface.version], interface.network.prefixlen, 0, 0, index)
    return header, {_IFA_LOCAL: interface.ip.packed, _IFA_ADDRESS: interface.ip.packed}


def _name_of(index: int) -> str | None:
    """Return the name of a device; None if it vanished in the meantime."""
    try:
        return socket.if_indextoname(index) if index > 0 else None
    except (OSError, OverflowError):
        return None
