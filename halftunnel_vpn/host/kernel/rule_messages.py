"""Routing rules as rtnetlink carries them, many in one message. See rtnetlink(7) and linux/fib_rules.h.

A tunnel has some thirty rules. For each, pyroute2 takes about a millisecond of processor time to write it,
and half of one to read it, so this module does both.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel.routes import PROTOCOL, Rule

MAX_BATCH: Final = 64
"""Rules in one message to the kernel. The acknowledgements of more might not fit into the socket's buffer."""

ANSWER_TIMEOUT: Final = 10.0
"""Seconds to wait for an answer. The kernel answers before the request returns."""

MAX_LISTINGS: Final = 5
"""How often the rules are listed again that changed while they were listed. The last listing counts."""

_READ_SIZE: Final = 65536
_NEW_RULE: Final = 32
_DELETE_RULE: Final = 33
_GET_RULE: Final = 34
_ACKNOWLEDGED: Final = 0x5  # NLM_F_REQUEST | NLM_F_ACK
_CREATE: Final = _ACKNOWLEDGED | 0x600  # NLM_F_CREATE | NLM_F_EXCL
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_INTERRUPTED: Final = 0x10
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3

_MESSAGE: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, serial number, port
_HEADER: Final = struct.Struct("=BBBBBBBBI")
"""``struct fib_rule_hdr``: family, lengths of destination and source, tos, table, unused, action, flags."""
_ATTRIBUTE: Final = struct.Struct("=HH")
_WORD: Final = struct.Struct("=I")
_PORTS: Final = struct.Struct("=HH")
_CODE: Final = struct.Struct("=i")
_ATTRIBUTE_KIND: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

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

_GONE: Final = (errno.ENOENT, errno.ESRCH, errno.EAFNOSUPPORT)
"""Errors about a rule that is already gone, with its IP version perhaps."""


def add(rules: Sequence[Rule]) -> None:
    """Add rules that do not exist yet, in this order. Raises HostError for the first that is refused."""
    _change(_NEW_RULE, _CREATE, rules, ())


def remove(rules: Sequence[Rule]) -> None:
    """Remove rules; a missing one does no harm. Raises HostError for the first that is refused."""
    _change(_DELETE_RULE, _ACKNOWLEDGED, rules, _GONE)


def listed() -> set[Rule]:
    """Return our rules of any priority. They are identified by our protocol number. Raises HostError."""
    found: set[Rule] = set()
    with _socket() as link:
        for version, family in _FAMILIES.items():
            of_version: set[Rule] = set()
            for _ in range(MAX_LISTINGS):
                request = _HEADER.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
                link.send(_MESSAGE.pack(_MESSAGE.size + len(request), _GET_RULE, _DUMP, 0, 0) + request)
                of_version, is_whole = _one_listing(link, version)
                if is_whole:
                    break
            found |= of_version
    return found


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
    return _HEADER.pack(*header) + b"".join(_packed(*item) for item in attributes.items())


def decode(body: bytes, version: int) -> Rule | None:
    """Return the rule in the body of a message; None if it is not ours, or of the other IP version."""
    if len(body) < _HEADER.size:
        return None
    family, destination_length, source_length, *_, kind, _ = _HEADER.unpack_from(body)
    found = _attributes(body[_HEADER.size :])
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


def _change(kind: int, flags: int, rules: Sequence[Rule], harmless: tuple[int, ...]) -> None:
    """Send the rules in batches, and read an acknowledgement of each."""
    if not rules:
        return
    refused = 0
    with _socket() as link:
        for at in range(0, len(rules), MAX_BATCH):
            bodies = [encode(rule) for rule in rules[at : at + MAX_BATCH]]
            link.send(b"".join(_MESSAGE.pack(_MESSAGE.size + len(b), kind, flags, 0, 0) + b for b in bodies))
            left = len(bodies)
            while left > 0:
                for found, _, body in _messages(link):
                    if found == _NLMSG_ERROR:
                        left -= 1
                        code = -_CODE.unpack_from(body)[0]
                        refused = refused or (0 if code in harmless else code)
            if refused:
                raise HostError(f"The kernel refused a change of the network: {os.strerror(refused)}.")


def _one_listing(link: socket.socket, version: int) -> tuple[set[Rule], bool]:
    """Return our rules of one IP version, and whether nothing changed while the kernel listed them."""
    found: set[Rule] = set()
    is_whole = True
    while True:
        for kind, flags, body in _messages(link):
            is_whole = is_whole and not flags & _INTERRUPTED
            if kind == _NLMSG_DONE:
                return found, is_whole
            if kind == _NLMSG_ERROR:  # an IP version that is turned off
                return set(), True
            rule = decode(body, version)
            if rule is not None:
                found.add(rule)


@contextlib.contextmanager
def _socket() -> Iterator[socket.socket]:
    """Yield a netlink socket in the network namespace of this thread. Its OSErrors become HostErrors."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as link:
            link.settimeout(ANSWER_TIMEOUT)
            link.bind((0, 0))
            yield link
    except OSError as error:
        reason = error.strerror or "it does not answer"
        raise HostError(f"The kernel cannot be asked about the network now ({reason}).") from error


def _messages(link: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, flags and body of each message of the next datagram."""
    data = link.recv(_READ_SIZE)
    at = 0
    while at + _MESSAGE.size <= len(data):
        length, kind, flags, *_ = _MESSAGE.unpack_from(data, at)
        if length < _MESSAGE.size:
            raise OSError(0, "a message of the kernel is too short")
        yield kind, flags, data[at + _MESSAGE.size : at + length]
        at += _aligned(length)


def _attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes in ``data``; what is cut off is left out."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _ATTRIBUTE_KIND] = data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    return found


def _packed(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _number(value: bytes | None, default: int = 0) -> int:
    return int(_WORD.unpack_from(value)[0]) if value is not None and len(value) >= _WORD.size else default


def _first_port(value: bytes | None) -> int:
    return int(_PORTS.unpack(value)[0]) if value is not None and len(value) == _PORTS.size else 0


def _address(value: bytes | None) -> str:
    return str(ipaddress.ip_address(value)) if value is not None and len(value) in (4, 16) else ""
