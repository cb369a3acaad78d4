"""Rules and routes as rtnetlink carries them. See linux/rtnetlink.h and linux/fib_rules.h."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import Final

from halftunnel_vpn.host.kernel.routes import LOOPBACK, PROTOCOL, TUN_METRIC, Route, Rule
from halftunnel_vpn.host.kernel.rtnetlink import Attributes, Message, pack, unpack

HELD_MTU: Final = 1500
"""The MTU in bytes that connections assume whose replies are routed a second time."""

FAMILIES: Final[dict[int, int]] = {4: socket.AF_INET, 6: socket.AF_INET6}
"""The address family of each IP version."""

# struct rtmsg and struct fib_rule_hdr: family, lengths of destination and source, tos, table, then protocol,
# scope and type of a route, or two unused bytes and the action of a rule; flags.
_HEADER: Final = struct.Struct("=BBBBBBBBI")
_NEXT_HOP: Final = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, weight, device
_WORD: Final = struct.Struct("=I")
_PORTS: Final = struct.Struct("=HH")

_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_GATEWAY: Final = 5
_RTA_PRIORITY: Final = 6
_RTA_METRICS: Final = 8
_RTA_MULTIPATH: Final = 9
_RTA_TABLE: Final = 15
_RTA_MARK: Final = 16
_RTA_VIA: Final = 18
_RTAX_MTU: Final = 2
_UNICAST: Final = 1  # RTN_UNICAST
_UNREACHABLE: Final = 7  # RTN_UNREACHABLE
_ONLINK: Final = 4  # RTNH_F_ONLINK: a cloud's router may lie outside the network of the device
_SCOPE_UNIVERSE: Final = 0
_SCOPE_LINK: Final = 253
_SCOPE_ANY: Final = 255  # RT_SCOPE_NOWHERE, when a route is removed

_FRA_DST: Final = 1
_FRA_SRC: Final = 2
_FRA_IIFNAME: Final = 3
_FRA_GOTO: Final = 4
_FRA_PRIORITY: Final = 6
_FRA_FWMARK: Final = 10
_FRA_SUPPRESS_PREFIXLEN: Final = 14
_FRA_TABLE: Final = 15
_FRA_PROTOCOL: Final = 21
_FRA_IP_PROTO: Final = 22
_FRA_DPORT_RANGE: Final = 24
_ACTIONS: Final = {1: "lookup", 2: "goto", 3: "nop", 7: "unreachable"}
_ACTION_NUMBERS: Final = {name: number for number, name in _ACTIONS.items()}
_NO_SUPPRESSION: Final = 0xFFFFFFFF


def number(value: bytes | None) -> int:
    """Return the number in an attribute; 0 if it is missing."""
    return int(_WORD.unpack_from(value)[0]) if value is not None and len(value) >= _WORD.size else 0


def address(value: bytes | None) -> str:
    """Return the address in an attribute as text; "" if it is missing."""
    return str(ipaddress.ip_address(value)) if value is not None and len(value) in (4, 16) else ""


# --- rules ---------------------------------------------------------------------------------------


def list_header(version: int, table: int = 0) -> bytes:
    """Return the header of a request that lists rules or routes of one IP version."""
    return _HEADER.pack(FAMILIES[version], 0, 0, 0, table if table < 256 else 0, 0, 0, 0, 0)


def table_filter(table: int) -> Attributes:
    """Return what makes the kernel list the routes of one table."""
    return {_RTA_TABLE: _WORD.pack(table)}


def rule_message(rule: Rule) -> tuple[bytes, Attributes]:
    """Return header and attributes of a rule."""
    attributes: dict[int, bytes] = {
        _FRA_PRIORITY: _WORD.pack(rule.priority),
        _FRA_PROTOCOL: bytes([PROTOCOL]),
    }
    lengths = {_FRA_DST: 0, _FRA_SRC: 0}
    for kind, text in ((_FRA_DST, rule.destination), (_FRA_SRC, rule.source)):
        if text:
            network = ipaddress.ip_network(text)
            attributes[kind], lengths[kind] = network.network_address.packed, network.prefixlen
    if rule.table:
        attributes[_FRA_TABLE] = _WORD.pack(rule.table)
    if rule.goto:
        attributes[_FRA_GOTO] = _WORD.pack(rule.goto)
    if rule.mark:
        attributes[_FRA_FWMARK] = _WORD.pack(rule.mark)
    if rule.device:
        attributes[_FRA_IIFNAME] = rule.device.encode() + b"\0"
    if rule.protocol:
        attributes[_FRA_IP_PROTO] = bytes([rule.protocol])
    if rule.port:
        attributes[_FRA_DPORT_RANGE] = _PORTS.pack(rule.port, rule.port)
    if rule.suppress >= 0:
        attributes[_FRA_SUPPRESS_PREFIXLEN] = _WORD.pack(rule.suppress)
    table = rule.table if rule.table < 256 else 0
    action = _ACTION_NUMBERS[rule.action]
    header = _HEADER.pack(
        FAMILIES[rule.version], lengths[_FRA_DST], lengths[_FRA_SRC], 0, table, 0, 0, action, 0
    )
    return header, attributes


def read_rule(message: Message, version: int) -> Rule | None:
    """Return the rule if it is ours and of this IP version."""
    family, destination_length, source_length, _, _, _, _, kind, _ = _HEADER.unpack(message.header)
    found = message.attributes
    if found.get(_FRA_PROTOCOL) != bytes([PROTOCOL]) or family != FAMILIES[version]:
        return None
    action = _ACTIONS.get(kind, f"action {kind}")
    suppress = number(found.get(_FRA_SUPPRESS_PREFIXLEN, _WORD.pack(_NO_SUPPRESSION)))
    destination, source = address(found.get(_FRA_DST)), address(found.get(_FRA_SRC))
    ports = found.get(_FRA_DPORT_RANGE)
    return Rule(
        version,
        number(found.get(_FRA_PRIORITY)),
        action,
        table=number(found.get(_FRA_TABLE)) if action == "lookup" else 0,
        goto=number(found.get(_FRA_GOTO)),
        mark=number(found.get(_FRA_FWMARK)),
        destination=f"{destination}/{destination_length}" if destination else "",
        protocol=found.get(_FRA_IP_PROTO, b"\0")[0],
        port=_PORTS.unpack(ports)[0] if ports else 0,
        device=found.get(_FRA_IIFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        source=f"{source}/{source_length}" if source else "",
        suppress=-1 if suppress == _NO_SUPPRESSION else suppress,
    )


# --- routes --------------------------------------------------------------------------------------


def route_message(route: Route, device: int, *, is_removed: bool = False) -> tuple[bytes, Attributes]:
    """Return header and attributes of a default route through the device of that index; 0: not named."""
    has_device = route.through_tun or bool(route.device)
    attributes: dict[int, bytes] = {
        _RTA_TABLE: _WORD.pack(route.table),
        _RTA_PRIORITY: _WORD.pack(route.metric),
    }
    flags, scope = 0, _SCOPE_UNIVERSE
    if route.gateway:
        attributes[_RTA_GATEWAY] = ipaddress.ip_address(route.gateway).packed
        flags = _ONLINK
    elif route.version == 4 and has_device:
        scope = _SCOPE_LINK
    if device:
        attributes[_RTA_OIF] = _WORD.pack(device)
    if route.device == LOOPBACK:
        attributes[_RTA_METRICS] = pack({_RTAX_MTU: _WORD.pack(HELD_MTU)})
    header = _HEADER.pack(
        FAMILIES[route.version],
        0,
        0,
        0,
        route.table if route.table < 256 else 0,
        PROTOCOL,
        _SCOPE_ANY if is_removed else scope,
        _UNICAST if has_device else _UNREACHABLE,
        flags,
    )
    return header, attributes


def read_route(message: Message, version: int, table: int) -> Route | None:
    """Return the route if it is a default route of ours in that table."""
    family, length, _, _, _, protocol, _, kind, _ = _HEADER.unpack(message.header)
    found = message.attributes
    if (family, length, protocol) != (FAMILIES[version], 0, PROTOCOL):
        return None
    if number(found.get(_RTA_TABLE)) != table:
        return None
    if kind == _UNREACHABLE:
        return Route(version, False, table)
    if number(found.get(_RTA_PRIORITY)) == TUN_METRIC:
        return Route(version, True, table)
    try:
        device = socket.if_indextoname(number(found.get(_RTA_OIF)))
    except OSError:
        device = "?"  # it vanished in the meantime
    return Route(version, False, table, device, gateway_of(found))


def lookup_message(destination: str, mark: int) -> tuple[bytes, Attributes]:
    """Return the request for the route to an address for packets with ``mark``."""
    wanted = ipaddress.ip_address(destination)
    header = _HEADER.pack(FAMILIES[wanted.version], wanted.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    return header, {_RTA_DST: wanted.packed, _RTA_MARK: _WORD.pack(mark)}


def default_hops(message: Message, version: int, table: int) -> list[tuple[int, int, str]] | None:
    """Return metric, device and router of each hop of a default route in ``table``; None if it is none."""
    family, length, _, _, _, _, _, kind, _ = _HEADER.unpack(message.header)
    found = message.attributes
    if (family, length, kind) != (FAMILIES[version], 0, _UNICAST):
        return None
    if number(found.get(_RTA_TABLE)) != table:
        return None
    metric = number(found.get(_RTA_PRIORITY))
    hops = list(_next_hops(found.get(_RTA_MULTIPATH, b""))) or [(number(found.get(_RTA_OIF)), found)]
    return [(metric, index, gateway_of(attributes)) for index, attributes in hops]


def output_device(message: Message) -> int:
    """Return the index of a route's device; 0 if it has none."""
    return number(message.attributes.get(_RTA_OIF))


def gateway_of(attributes: Attributes) -> str:
    """Return the router of a route or of one of its next hops; "" if there is none."""
    # RTA_VIA, a router of the other IP version: its address family, then its address.
    return address(attributes.get(_RTA_GATEWAY)) or address(attributes.get(_RTA_VIA, b"")[2:])


def _next_hops(data: bytes) -> Iterator[tuple[int, Attributes]]:
    at = 0
    while at + _NEXT_HOP.size <= len(data):
        length, _, _, index = _NEXT_HOP.unpack_from(data, at)
        if length < _NEXT_HOP.size:
            return
        yield index, unpack(data[at + _NEXT_HOP.size : at + length])
        at += (length + 3) & ~3
