"""The TCP connections that this host has accepted, as listed in /proc/net/tcp (proc(5))."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path
from typing import Final, NamedTuple

TABLES: Final = (Path("/proc/thread-self/net/tcp"), Path("/proc/thread-self/net/tcp6"))

MAX_ACCEPTED: Final = 16384
"""The most connections that are returned. Further ones are left out."""

_LISTEN: Final = "0A"
_OVER: Final = ("06", "07")  # TIME_WAIT, CLOSE


class Accepted(NamedTuple):
    """Both ends of one connection. Both addresses have the same IP version."""

    local: str
    local_port: int
    remote: str
    remote_port: int


def accepted_connections(tables: tuple[Path, ...] = TABLES) -> list[Accepted]:
    """Return the connections whose local port has a listener: the other end opened them. Not loopback."""
    listening: set[str] = set()
    others: list[tuple[str, str]] = []
    for path in tables:
        try:
            lines = path.read_text().splitlines()[1:]
        except OSError:
            continue  # the kernel lacks this address family
        for line in lines:
            _, local, remote, state, _ = line.split(None, 4)
            if state == _LISTEN:
                listening.add(_port(local))
            elif state not in _OVER:
                others.append((local, remote))
    found: list[Accepted] = []
    for local, remote in others:
        if _port(local) not in listening:
            continue  # a host may have thousands, and to read an address takes time
        address, port = _endpoint(local)
        if not address.is_loopback:
            found.append(Accepted(str(address), port, *_printed(remote)))
    return found[:MAX_ACCEPTED]


def _port(text: str) -> str:
    """Return the port of an endpoint as it is listed: four hexadecimal digits."""
    return text.rpartition(":")[2]


def _printed(text: str) -> tuple[str, int]:
    address, port = _endpoint(text)
    return str(address), port


def _endpoint(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """Parse ``0100007F:0016``: 32-bit words in the byte order of this machine, then the port."""
    address, _, port = text.partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if len(packed) == 4:
        return ipaddress.IPv4Address(packed), int(port, 16)
    parsed = ipaddress.IPv6Address(packed)
    return parsed.ipv4_mapped or parsed, int(port, 16)
