"""Routing rules as rtnetlink carries them. See linux/fib_rules.h.

A tunnel has some thirty rules. pyroute2 takes twenty times as long to write and read them.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Final

from halftunnel_vpn.host.kernel.route_socket import attributes_of, packed
from halftunnel_vpn.host.kernel.routes import PROTOCOL, Rule

_HEADER: Final = struct.Struct("=BBBBBBBBI")
"""``struct fib_rule_hdr``: family, lengths of destination and source, tos, table, unused, action, flags."""
_WORD: Final = struct.Struct("=I")
_PORTS: Final = struct.Struct("=HH")

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

_FAMILIES: Final = {4: int(socket.AF_INET), 6: int(socket.AF_INET6)}
_ACTIONS: Final = {1: "lookup", 2: "goto", 3: "nop", 7: "unreachable"}
_ACTION_NUMBERS: Final = {name: number for number, name in _ACTIONS.items()}
_NO_SUPPRESSION: Final = 0xFFFFFFFF
_OURS: Final = bytes([PROTOCOL])


def list_request(version: int) -> bytes:
    """Return the body of the request that lists the rules of one IP version."""
    return _HEADER.pack(_FAMILIES[version], 0, 0, 0, 0, 0, 0, 0, 0)


def encode(rule: Rule) -> bytes:
    """Return the body of the message that adds or removes ``rule``."""
    attributes: dict[int, bytes] = {_FRA_PRIORITY: _WORD.pack(rule.priority), _FRA_PROTOCOL: _OURS}
    lengths = {_FRA_DST: 0, _FRA_SRC: 0}
    for kind, text in ((_FRA_DST, rule.destination), (_FRA_SRC, rule.source)):
        if text:
            network = ipaddress.ip_network(text)
            attributes[kind], lengths[kind] = network.network_address.packed, network.prefixlen
    words = (_FRA_TABLE, rule.table), (_FRA_GOTO, rule.goto), (_FRA_FWMARK, rule.mark)
    attributes |= {kind: _WORD.pack(number) for kind, number in words if number}
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
    header = (_FAMILIES[rule.version], lengths[_FRA_DST], lengths[_FRA_SRC], 0, table, 0, 0, action, 0)
    return _HEADER.pack(*header) + packed(attributes)


def decode(body: bytes, version: int) -> Rule | None:
    """Return the rule in the body of a message; None if it is not ours, or of the other IP version."""
    if len(body) < _HEADER.size:
        return None
    family, destination_length, source_length, *_, kind, _ = _HEADER.unpack_from(body)
    found = attributes_of(body[_HEADER.size :])
    if found.get(_FRA_PROTOCOL) != _OURS or family != _FAMILIES[version]:
        return None
    action = _ACTIONS.get(kind, f"action {kind}")
    suppress = _number(found.get(_FRA_SUPPRESS_PREFIXLEN), _NO_SUPPRESSION)
    destination, source = _address(found.get(_FRA_DST)), _address(found.get(_FRA_SRC))
    return Rule(
        version,
        _number(found.get(_FRA_PRIORITY)),
        action,
        table=_number(found.get(_FRA_TABLE)) if action == "lookup" else 0,
        goto=_number(found.get(_FRA_GOTO)),
        mark=_number(found.get(_FRA_FWMARK)),
        destination=f"{destination}/{destination_length}" if destination else "",
        protocol=int.from_bytes(found.get(_FRA_IP_PROTO, b"")[:1], "little"),
        port=_first_port(found.get(_FRA_DPORT_RANGE)),
        device=found.get(_FRA_IIFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        source=f"{source}/{source_length}" if source else "",
        suppress=-1 if suppress == _NO_SUPPRESSION else suppress,
    )


def _number(value: bytes | None, default: int = 0) -> int:
    return int(_WORD.unpack_from(value)[0]) if value is not None and len(value) >= _WORD.size else default


def _first_port(value: bytes | None) -> int:
    return int(_PORTS.unpack(value)[0]) if value is not None and len(value) == _PORTS.size else 0


def _address(value: bytes | None) -> str:
    return str(ipaddress.ip_address(value)) if value is not None and len(value) in (4, 16) else ""
