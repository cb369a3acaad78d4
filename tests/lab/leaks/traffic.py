"""Traffic of every kind that a host may send, over and over; run in the client's namespace, as root.

    python -m lab.leaks.traffic SECONDS_BETWEEN_ROUNDS

Nothing waits for an answer, and a refusal is what we hope for. It ends with SIGTERM and then prints how many
packets of each kind it has tried to send.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from halftunnel_vpn.host.host_state import DEFAULT_MARK, inbound_mark
from halftunnel_vpn.inet.checksum import internet_checksum
from lab.topology import (
    CLIENT_A,
    CLIENT_A6,
    LAN_LINK,
    LAN_RESOLVER,
    LAN_RESOLVER6,
    OUTSIDE,
    OUTSIDE6,
    ROAD_A,
    TARGET_ADDRESS,
    TARGET_ADDRESS6,
)

CANARY: Final = b"half-tunnel-leak-canary " * 3
LARGE: Final = CANARY * 60
"""More than any link here takes whole: leaves as fragments."""

QUERY: Final = bytes.fromhex("1d1d01000001000000000000") + b"\x06canary\x04test\x00\x00\x01\x00\x01"
DISCARD: Final = 9
DNS: Final = 53
FORGED_PORT: Final = 8181
"""Where packets go whose program has given them the mark of a reply."""
GLOBAL_GROUPS: Final = ("224.2.2.2", "ff0e::2")
GRE: Final = 47

_SO_BINDTODEVICE: Final = 25
_IP_HDRINCL: Final = 3

Send = Callable[[], None]


@contextlib.contextmanager
def _socket(family: int, kind: int, protocol: int = 0, *, device: str = "") -> Iterator[socket.socket]:
    with socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol) as made:
        if device:
            made.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, device.encode())
        yield made


def _datagram(
    address: str, port: int, data: bytes, *, device: str = "", source: str = "", mark: int = 0
) -> Send:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def send() -> None:
        with _socket(family, socket.SOCK_DGRAM, device=device) as made:
            if source:
                made.bind((source, 0))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            made.sendto(data, (address, port))

    return send


def _connection(address: str, port: int, *, device: str = "", source: str = "", mark: int = 0) -> Send:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    open_: list[socket.socket] = []

    def send() -> None:
        # the one of the last round has had its time
        for old in open_:
            with contextlib.suppress(OSError):
                old.send(CANARY)
            old.close()
        open_.clear()
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        open_.append(made)
        if device:
            made.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, device.encode())
        if source:
            made.bind((source, 0))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        made.connect_ex((address, port))

    return send


def echo_message(six: bool, sequence: int, body: bytes) -> bytes:
    """An ICMP echo request; the kernel computes the checksum of ICMPv6."""
    message = struct.pack(">BBHHH", 128 if six else 8, 0, 0, 0x1D1D, sequence & 0xFFFF) + body
    return message if six else message[:2] + internet_checksum(message).to_bytes(2, "big") + message[4:]


def _ping(address: str, *, device: str = "", source: str = "", size: int = 40) -> Send:
    six = ":" in address
    family = socket.AF_INET6 if six else socket.AF_INET
    protocol = socket.getprotobyname("ipv6-icmp" if six else "icmp")
    sequence = iter(range(1 << 62))

    def send() -> None:
        body = echo_message(six, next(sequence), CANARY[:size].ljust(size, b"-"))
        with _socket(family, socket.SOCK_RAW, protocol, device=device) as made:
            if source:
                made.bind((source, 0))
            made.sendto(body, (address, 0))

    return send


def _multicast(group: str, device: str) -> Send:
    six = ":" in group

    def send() -> None:
        index = socket.if_nametoindex(device)
        with _socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as made:
            if six:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 8)
            else:
                member = struct.pack("=4s4si", b"", b"", index)
                made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, member)
                made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
            made.sendto(CANARY, (group, DISCARD))

    return send


def _raw(protocol: int, address: str, *, device: str = "") -> Send:
    """A protocol that no tunnel of ours carries, with a header of its own making."""

    def send() -> None:
        with _socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW, device=device) as made:
            made.setsockopt(socket.IPPROTO_IP, _IP_HDRINCL, 1)
            header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(CANARY), 0, 0, 64, protocol, 0)
            header += socket.inet_aton(CLIENT_A) + socket.inet_aton(address)
            made.sendto(header + CANARY, (address, 0))

    return send


def kinds() -> dict[str, Send]:
    """Every kind of traffic, by what it is called."""
    made: dict[str, Send] = {}
    reply = inbound_mark(DEFAULT_MARK)
    for version, target, resolver, source, caller in (
        ("4", TARGET_ADDRESS, LAN_RESOLVER, CLIENT_A, OUTSIDE),
        ("6", TARGET_ADDRESS6, LAN_RESOLVER6, CLIENT_A6, OUTSIDE6),
    ):
        made |= {
            f"tcp{version}": _connection(target, 80),
            f"tcp{version} from the road's address": _connection(target, 80, source=source),
            f"tcp{version} to a caller": _connection(caller, 80, source=source),
            f"tcp{version} to a caller, marked as a reply": _connection(
                caller, FORGED_PORT, source=source, mark=reply
            ),
            f"udp{version} to a caller": _datagram(caller, DISCARD, CANARY, source=source),
            f"udp{version} to a caller, marked as a reply": _datagram(
                caller, FORGED_PORT, CANARY, source=source, mark=reply
            ),
            f"ping{version} to a caller": _ping(caller, source=source),
            f"tcp{version} bound to the road": _connection(target, 80, device=ROAD_A),
            f"udp{version}": _datagram(target, DISCARD, CANARY),
            f"udp{version} bound to the road": _datagram(target, DISCARD, CANARY, device=ROAD_A),
            f"udp{version} in fragments": _datagram(target, DISCARD, LARGE),
            f"udp{version} in fragments, bound": _datagram(target, DISCARD, LARGE, device=ROAD_A),
            f"udp{version} to the LAN": _datagram(resolver, DISCARD, CANARY),
            f"dns{version} to the LAN": _datagram(resolver, DNS, QUERY),
            f"dns{version} to the LAN, bound": _datagram(resolver, DNS, QUERY, device=LAN_LINK),
            f"dns{version} to the LAN over tcp": _connection(resolver, DNS),
            f"dns{version} to a public resolver": _datagram(target, DNS, QUERY),
            f"dns{version} to a public resolver, bound": _datagram(target, DNS, QUERY, device=ROAD_A),
            f"ping{version}": _ping(target),
            f"ping{version} bound to the road": _ping(target, device=ROAD_A),
            f"ping{version} in fragments": _ping(target, size=4000),
        }
    for group in GLOBAL_GROUPS:
        made[f"multicast to {group}"] = _multicast(group, ROAD_A)
    made["gre"] = _raw(GRE, TARGET_ADDRESS)
    made["gre bound to the road"] = _raw(GRE, TARGET_ADDRESS, device=ROAD_A)
    made["udp with a header of its own"] = _raw(socket.IPPROTO_UDP, TARGET_ADDRESS, device=ROAD_A)
    return made


def main(pause: float) -> None:
    """Send until SIGTERM."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive the lab
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    tried: Counter[str] = Counter()
    sends = kinds()
    while not ended:
        for name, send in sends.items():
            tried[name] += 1
            with contextlib.suppress(OSError):  # refused, unreachable, no such device: that is what we want
                send()
        time.sleep(pause)
    for name, count in tried.items():
        print(f"{count:7} {name}")


if __name__ == "__main__":
    main(float(sys.argv[1]))
