"""The addresses of this machine, as the kernel lists them in /proc."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

FIB_TRIE = Path("/proc/thread-self/net/fib_trie")
"""IPv4: the local routes of this network namespace. An address is on the line before its route."""

IF_INET6 = Path("/proc/thread-self/net/if_inet6")
"""IPv6: one address per line, as 32 hexadecimal digits."""

_LOCAL_IPV4 = re.compile(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL")


def local_addresses() -> frozenset[Address]:
    """Return every address of every interface in this network namespace; needs no privilege.

    Raises OSError when they cannot be read, as without /proc. An empty set would mean that there are none.
    """
    found: set[Address] = {ipaddress.IPv4Address(text) for text in _LOCAL_IPV4.findall(_read(FIB_TRIE))}
    try:
        ipv6 = _read(IF_INET6)
    except FileNotFoundError:
        ipv6 = ""  # /proc exists, so this kernel has no IPv6
    for line in ipv6.splitlines():
        found.add(ipaddress.IPv6Address(bytes.fromhex(line.split()[0])))
    return frozenset(found)


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace")  # a device may have any name
