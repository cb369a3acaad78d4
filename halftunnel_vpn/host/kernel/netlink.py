"""Links, addresses, rules and routes of the kernel, read and changed over rtnetlink."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel import netlink_library, route_socket, rule_messages
from halftunnel_vpn.host.kernel.route_socket import NetlinkRefusal, RouteSocket
from halftunnel_vpn.host.kernel.routes import (
    KERNELS_TABLES,
    LOOPBACK,
    MAIN_TABLE,
    PROTOCOL,
    TUN_METRIC,
    Route,
    Rule,
    Uplink,
)

MAX_UPLINKS: Final = 8
"""Devices with a default route whose replies are kept apart. Replies of others follow `main`."""

HELD_MTU: Final = 1500
"""The MTU in bytes that connections assume whose replies are routed a second time."""

_Result = TypeVar("_Result")

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_UNICAST: Final = 1  # RTN_UNICAST
_UNREACHABLE: Final = 7  # RTN_UNREACHABLE
_ONLINK: Final = 4  # RTNH_F_ONLINK: a cloud's router may lie outside the network of the device
_SCOPE_LINK: Final = 253
_LINK: Final = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, changed flags
_WORD: Final = struct.Struct("=I")
_IFLA_MTU: Final = 4
_HEADER: Final = route_socket.HEADER.size
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
        with RouteSocket() as opened:
            return work(Kernel(opened))
    except NetlinkRefusal as refusal:
        raise HostError(f"The kernel refused a change of the network: {refusal}.") from refusal
    except OSError as error:  # e.g. out of descriptors
        reason = error.strerror or "it does not answer"
        raise HostError(f"The kernel cannot be asked about the network now ({reason}).") from error


class Kernel:
    """The kernel's objects of ours, and single changes to them. Removing a missing one does nothing."""

    __slots__ = ("_messages", "_socket")

    def __init__(self, opened: RouteSocket) -> None:
        self._socket = opened
        self._messages = netlink_library.load()

    def link(self, name: str) -> Link | None:
        """Return the device; None if there is none of that name."""
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            return None
        try:
            body = self._socket.get(route_socket.GET_LINK, _LINK.pack(0, 0, index, 0, 0))[_HEADER:]
        except NetlinkRefusal as refusal:
            if refusal.code != errno.ENODEV:
                raise
            return None  # it vanished in the meantime
        mtu = route_socket.attributes_of(body[_LINK.size :]).get(_IFLA_MTU, bytes(_WORD.size))
        is_up = bool(_LINK.unpack_from(body)[3] & _IFF_UP)
        addresses = set()
        for item in self._addresses(index):
            address = item.get_attr("IFA_LOCAL") or item.get_attr("IFA_ADDRESS")
            interface = ipaddress.ip_interface(f"{address}/{item['prefixlen']}")
            if not (interface.version == 6 and interface.is_link_local):
                addresses.add(str(interface))
        return Link(index, int(_WORD.unpack(mtu)[0]), is_up, frozenset(addresses))

    def set_mtu(self, index: int, mtu: int) -> None:
        """Set the MTU of a device, in bytes."""
        body = _LINK.pack(0, 0, index, 0, 0) + route_socket.packed({_IFLA_MTU: _WORD.pack(mtu)})
        self._socket.change(route_socket.NEW_LINK, [body])

    def set_up(self, index: int, *, up: bool) -> None:
        """Set a device up or down."""
        flags = _IFF_UP if up else 0
        self._socket.change(route_socket.NEW_LINK, [_LINK.pack(0, 0, index, flags, _IFF_UP)])

    def add_address(self, index: int, text: str) -> None:
        """Add an address, ``ADDRESS/LENGTH``, to the device. It is usable at once."""
        self._socket.change(route_socket.NEW_ADDRESS, [self._address_body(index, text)])

    def remove_address(self, index: int, text: str) -> None:
        """Remove an address, ``ADDRESS/LENGTH``, from the device."""
        self._socket.remove(route_socket.DELETE_ADDRESS, [self._address_body(index, text)])

    def rules(self) -> set[Rule]:
        """Return our rules of any priority. They are identified by our protocol number."""
        found = set()
        for version in _FAMILIES:
            for message in self._socket.listed(route_socket.GET_RULE, rule_messages.list_request(version)):
                rule = rule_messages.decode(message[_HEADER:], version)
                if rule is not None:
                    found.add(rule)
        return found

    def add_rules(self, rules: Sequence[Rule]) -> None:
        """Add rules that do not exist yet, in this order."""
        self._socket.change(route_socket.NEW_RULE, [rule_messages.encode(rule) for rule in rules])

    def remove_rules(self, rules: Sequence[Rule]) -> None:
        """Remove rules."""
        self._socket.remove(route_socket.DELETE_RULE, [rule_messages.encode(rule) for rule in rules])

    def routes(self, tables: Iterable[int]) -> set[Route]:
        """Return our default routes in these tables. The kernel's own tables are never read."""
        found = set()
        for table in set(tables).difference(KERNELS_TABLES):
            for version in _FAMILIES:
                for message in self._routes(version, table):
                    ours = message["proto"] == PROTOCOL and message["dst_len"] == 0
                    if ours and message.get_attr("RTA_TABLE") == table:
                        found.add(_route_from(message, version, table))
        return found

    def add_route(self, route: Route, index: int) -> None:
        """Add a route. ``index`` is that of the TUN device, for a route through it."""
        device = index if route.through_tun else 0
        if route.device and not route.through_tun:
            device = socket.if_nametoindex(route.device)
        self._socket.change(route_socket.NEW_ROUTE, [self._route_body(route, device)])

    def remove_route(self, route: Route) -> None:
        """Remove one route."""
        self._socket.remove(route_socket.DELETE_ROUTE, [self._route_body(route, 0)])

    def uplinks(self, tun: str) -> tuple[Uplink, ...]:
        """Return the devices of the default routes in `main`, at most MAX_UPLINKS; none if only one."""
        gateways: dict[int, dict[int, tuple[int, str]]] = {}
        for version in _FAMILIES:
            for message in self._routes(version, MAIN_TABLE):
                if message["dst_len"] or message["type"] != _UNICAST:
                    continue
                metric = message.get_attr("RTA_PRIORITY") or 0
                for hop in message.get_attr("RTA_MULTIPATH") or (message,):
                    index = hop["oif"] if hop is not message else message.get_attr("RTA_OIF")
                    best = gateways.setdefault(index or 0, {}).get(version)
                    if best is None or metric < best[0]:
                        gateways[index or 0][version] = metric, _gateway_of(hop)
        found = []
        for index, ways in sorted(gateways.items()):
            try:
                device = socket.if_indextoname(index)
            except (OSError, OverflowError):
                continue  # it vanished in the meantime
            if device not in (tun, LOOPBACK):
                pairs = tuple((version, gateway) for version, (_, gateway) in sorted(ways.items()))
                found.append(Uplink(index, device, pairs))
        return tuple(found[:MAX_UPLINKS]) if len(found) > 1 else ()

    def next_step(self, destination: str, mark: int) -> tuple[str, str] | None:
        """Return device and gateway ("" on link) to an address for packets with ``mark``; None if none."""
        address = ipaddress.ip_address(destination)
        fields = {"family": _FAMILIES[address.version], "dst_len": address.max_prefixlen}
        body = _encoded(self._messages.route, fields, [("RTA_DST", destination), ("RTA_MARK", mark)])
        try:
            message = _decoded(self._messages.route, self._socket.get(route_socket.GET_ROUTE, body))
        except NetlinkRefusal as refusal:
            if refusal.code not in _NO_WAY:
                raise
            return None
        index = message.get_attr("RTA_OIF")
        try:
            device = socket.if_indextoname(index) if index else None
        except OSError:
            device = None  # it vanished in the meantime
        return None if device is None or device == LOOPBACK else (device, _gateway_of(message))

    def lasting_addresses(self, device: str, version: int) -> frozenset[str]:
        """Return the device's addresses of one IP version, except link-local and temporary (RFC 8981)."""
        try:
            index = socket.if_nametoindex(device)
        except OSError:
            return frozenset()
        found = set()
        for item in self._addresses(index, _FAMILIES[version]):
            flags = item.get_attr("IFA_FLAGS") or item["flags"]
            address = ipaddress.ip_address(item.get_attr("IFA_LOCAL") or item.get_attr("IFA_ADDRESS"))
            # IPv6 flags temporary addresses so; for IPv4 the same bit means a second address of a network.
            rotates = version == 6 and flags & _IFA_F_TEMPORARY
            if not (rotates or flags & _IFA_F_TENTATIVE or address.is_link_local):
                found.add(str(address))
        return frozenset(found)

    def _addresses(self, index: int, family: int = 0) -> list[Any]:
        """Return the messages about the addresses of a device; ``family`` 0: of both IP versions."""
        body = _encoded(self._messages.address, {"family": family, "index": index}, [])
        messages = self._socket.listed(route_socket.GET_ADDRESS, body)
        found = (_decoded(self._messages.address, message) for message in messages)
        return [item for item in found if item["index"] == index and family in (0, item["family"])]

    def _routes(self, version: int, table: int) -> list[Any]:
        """Return the messages about the routes of a table; of others, too, if the kernel lists them."""
        fields = {"family": _FAMILIES[version], "table": _short(table)}
        body = _encoded(self._messages.route, fields, [("RTA_TABLE", table)])
        messages = self._socket.listed(route_socket.GET_ROUTE, body)
        found = (_decoded(self._messages.route, message) for message in messages)
        return [item for item in found if item.get_attr("RTA_TABLE") == table]

    def _address_body(self, index: int, text: str) -> bytes:
        interface = ipaddress.ip_interface(text)
        fields = {
            "family": _FAMILIES[interface.version],
            "prefixlen": interface.network.prefixlen,
            "index": index,
        }
        address = str(interface.ip)
        return _encoded(self._messages.address, fields, [("IFA_LOCAL", address), ("IFA_ADDRESS", address)])

    def _route_body(self, route: Route, device: int) -> bytes:
        """Return the body of a message about a route through the device of that index; 0: any."""
        has_device = route.through_tun or bool(route.device)
        fields = {
            "family": _FAMILIES[route.version],
            "table": _short(route.table),
            "proto": PROTOCOL,
            "type": _UNICAST if has_device else _UNREACHABLE,
        }
        attributes: list[tuple[str, Any]] = [("RTA_TABLE", route.table), ("RTA_PRIORITY", route.metric)]
        if route.gateway:
            attributes.append(("RTA_GATEWAY", route.gateway))
            fields["flags"] = _ONLINK
        elif route.version == 4 and has_device:
            fields["scope"] = _SCOPE_LINK
        if device:
            attributes.append(("RTA_OIF", device))
        if route.device == LOOPBACK:
            attributes.append(("RTA_METRICS", {"attrs": [("RTAX_MTU", HELD_MTU)]}))
        return _encoded(self._messages.route, fields, attributes)


def _encoded(kind: Any, fields: Mapping[str, int], attributes: list[tuple[str, Any]]) -> bytes:
    """Return the body of a message, without its header."""
    message = kind()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data[_HEADER:])


def _decoded(kind: Any, data: bytes) -> Any:
    message = kind(data)
    message.decode()
    return message


def _short(table: int) -> int:
    """Return the number of a table for the field of one byte; larger numbers are in an attribute."""
    return table if table < 256 else 0


def _route_from(message: Any, version: int, table: int) -> Route:
    if message["type"] == _UNREACHABLE:
        return Route(version, False, table)
    if message.get_attr("RTA_PRIORITY") == TUN_METRIC:
        return Route(version, True, table)
    try:
        device = socket.if_indextoname(message.get_attr("RTA_OIF") or 0)
    except OSError:
        device = "?"  # it vanished in the meantime
    return Route(version, False, table, device, _gateway_of(message))


def _gateway_of(hop: Any) -> str:
    """Return the router of a route or of one of its next hops; "" if there is none."""
    return str(hop.get_attr("RTA_GATEWAY") or (hop.get_attr("RTA_VIA") or {}).get("addr", ""))
