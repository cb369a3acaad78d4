"""Links, addresses, rules and routes of the kernel, read and changed through pyroute2."""

from __future__ import annotations

import errno
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel import netlink_library, rule_messages
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
    """Run ``work`` with a netlink socket and return its result. Raises HostError if the kernel refuses.

    It runs in a thread of its own, in the network namespace of this thread: the synchronous calls of pyroute2
    run an event loop, and one loop cannot run inside another.
    """
    library = netlink_library.load()
    outcome: list[_Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            with library.IPRoute() as socket_:
                outcome.append(work(Kernel(socket_)))
        except library.NetlinkError as error:
            failure.append(HostError(f"The kernel refused a change of the network: {error.args[-1]}."))
        except OSError as error:  # e.g. out of descriptors
            failure.append(HostError(f"The kernel cannot be asked about the network now ({error.strerror})."))
        except BaseException as error:  # passed on to the caller, whatever it is
            failure.append(error)

    thread = threading.Thread(target=run, name="netlink")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


class Kernel:
    """The kernel's objects of ours, and single changes to them. Removing a missing one does nothing."""

    __slots__ = ("_netlink",)

    def __init__(self, netlink: Any) -> None:
        self._netlink = netlink

    def link(self, name: str) -> Link | None:
        """Return the device; None if there is none of that name."""
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            return None
        (message,) = self._netlink.get_links(index)
        addresses = set()
        for item in self._netlink.get_addr(index=index):
            address = item.get_attr("IFA_LOCAL") or item.get_attr("IFA_ADDRESS")
            interface = ipaddress.ip_interface(f"{address}/{item['prefixlen']}")
            if not (interface.version == 6 and interface.is_link_local):
                addresses.add(str(interface))
        return Link(
            index, message.get_attr("IFLA_MTU"), bool(message["flags"] & _IFF_UP), frozenset(addresses)
        )

    def set_link(self, index: int, **values: Any) -> None:
        """Change ``mtu`` (bytes) or ``state`` ("up", "down")."""
        self._netlink.link("set", index=index, **values)

    def add_address(self, index: int, text: str) -> None:
        """Add an address, ``ADDRESS/LENGTH``, to the device. It is usable at once."""
        self._netlink.addr("add", index=index, **_address_arguments(text))

    def remove_address(self, index: int, text: str) -> None:
        """Remove an address, ``ADDRESS/LENGTH``, from the device."""
        self._unless_gone(self._netlink.addr, index=index, **_address_arguments(text))

    def rules(self) -> set[Rule]:
        """Return our rules of any priority. They are identified by our protocol number."""
        return rule_messages.listed()

    def add_rules(self, rules: Sequence[Rule]) -> None:
        """Add rules that do not exist yet, in this order."""
        rule_messages.add(rules)

    def remove_rules(self, rules: Sequence[Rule]) -> None:
        """Remove rules."""
        rule_messages.remove(rules)

    def routes(self, tables: Iterable[int]) -> set[Route]:
        """Return our default routes in these tables. The kernel's own tables are never read."""
        found = set()
        for table in set(tables).difference(KERNELS_TABLES):
            for version, family in _FAMILIES.items():
                for message in self._netlink.get_routes(family=family, table=table):
                    ours = message["proto"] == PROTOCOL and message["dst_len"] == 0
                    if ours and message.get_attr("RTA_TABLE") == table:
                        found.add(_route_from(message, version, table))
        return found

    def add_route(self, route: Route, index: int) -> None:
        """Add a route. ``index`` is that of the TUN device, for a route through it."""
        arguments = _route_arguments(route)
        if route.through_tun:
            arguments["oif"] = index
        elif route.device:
            arguments["oif"] = socket.if_nametoindex(route.device)
        self._netlink.route("add", **arguments)

    def remove_route(self, route: Route) -> None:
        """Remove one route."""
        self._unless_gone(self._netlink.route, **_route_arguments(route))

    def uplinks(self, tun: str) -> tuple[Uplink, ...]:
        """Return the devices of the default routes in `main`, at most MAX_UPLINKS; none if only one."""
        gateways: dict[int, dict[int, tuple[int, str]]] = {}
        for version, family in _FAMILIES.items():
            for message in self._netlink.get_routes(family=family, table=MAIN_TABLE):
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
        family = _FAMILIES[ipaddress.ip_address(destination).version]
        try:
            (message,) = self._netlink.route("get", family=family, dst=destination, mark=mark)
        except netlink_library.load().NetlinkError as error:
            if error.code not in _NO_WAY:
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
        for item in self._netlink.get_addr(family=_FAMILIES[version], index=index):
            flags = item.get_attr("IFA_FLAGS") or item["flags"]
            address = ipaddress.ip_address(item.get_attr("IFA_LOCAL") or item.get_attr("IFA_ADDRESS"))
            # IPv6 flags temporary addresses so; for IPv4 the same bit means a second address of a network.
            rotates = version == 6 and flags & _IFA_F_TEMPORARY
            if not (rotates or flags & _IFA_F_TENTATIVE or address.is_link_local):
                found.add(str(address))
        return frozenset(found)

    def _unless_gone(self, call: Callable[..., Any], **arguments: Any) -> None:
        try:
            call("del", **arguments)
        except netlink_library.load().NetlinkError as error:
            if error.code not in _GONE:
                raise


def _address_arguments(text: str) -> dict[str, Any]:
    interface = ipaddress.ip_interface(text)
    return {
        "family": _FAMILIES[interface.version],
        "address": str(interface.ip),
        "prefixlen": interface.network.prefixlen,
    }


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


def _route_arguments(route: Route) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "family": _FAMILIES[route.version],
        "dst": "default",
        "table": route.table,
        "priority": route.metric,
        "proto": PROTOCOL,
        "type": "unicast" if route.through_tun or route.device else "unreachable",
    }
    if route.gateway:
        arguments |= {"gateway": route.gateway, "flags": _ONLINK}
    elif route.version == 4 and (route.through_tun or route.device):
        arguments["scope"] = _SCOPE_LINK
    if route.device == LOOPBACK:
        arguments["metrics"] = {"mtu": HELD_MTU}
    return arguments


def _gateway_of(hop: Any) -> str:
    """Return the router of a route or of one of its next hops; "" if there is none."""
    return str(hop.get_attr("RTA_GATEWAY") or (hop.get_attr("RTA_VIA") or {}).get("addr", ""))
