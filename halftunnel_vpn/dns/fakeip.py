"""Addresses that stand for names: handed to applications, turned back into the name when a flow arrives."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

IPV4_SUFFIX = ".in-addr.arpa"
IPV6_SUFFIX = ".ip6.arpa"


class _Lease:
    __slots__ = ("address", "name", "used")

    def __init__(self, name: str, address: bytes, used: float) -> None:
        self.name = name
        self.address = address
        self.used = used


class FakePool:
    """Names and addresses of one network, one to one.

    At most ``max_entries`` names have an address, and at most half of the network's addresses are in use, so
    that an address rests as long as it can before it means another name. A lease that was used (given out or
    asked about) within ``hold`` seconds is never taken away. ``first`` is where in the network the first
    address is taken: another place at every start, so that an address that an application remembers from the
    last run most likely means nothing now, rather than another name.
    """

    def __init__(self, network: str, *, max_entries: int, hold: float, first: int = 0) -> None:
        parsed = ipaddress.ip_network(network)
        self.version: int = parsed.version
        self._base = int(parsed.network_address) + 1
        self._addresses = parsed.num_addresses - 2
        self._width = parsed.max_prefixlen // 8
        self._prefix = parsed
        self._max_entries = min(max_entries, max(self._addresses // 2, 1))
        self._hold = hold
        self._next = first
        self._by_name: OrderedDict[str, _Lease] = OrderedDict()
        self._by_address: dict[bytes, _Lease] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, address: bytes) -> bool:
        """Whether ``address`` (4 or 16 bytes) belongs to the network, leased or not."""
        return len(address) == self._width and ipaddress.ip_address(address) in self._prefix

    def lease(self, name: str, now: float) -> bytes | None:
        """The address of ``name``, a new one if it has none; None when every lease is still held."""
        address = self.address_of(name, now)
        if address is not None:
            return address
        if len(self._by_name) >= self._max_entries:
            oldest = next(iter(self._by_name.values()))
            if now - oldest.used < self._hold:
                return None
            del self._by_name[oldest.name]
            del self._by_address[oldest.address]
        lease = _Lease(name, self._unused_address(), now)
        self._by_name[name] = self._by_address[lease.address] = lease
        return lease.address

    def address_of(self, name: str, now: float) -> bytes | None:
        """The address that ``name`` has; None when it has none."""
        lease = self._by_name.get(name)
        return self._touch(lease, now).address if lease is not None else None

    def name_of(self, address: bytes, now: float) -> str | None:
        """The name that ``address`` (4 or 16 bytes) stands for; None when it stands for none."""
        lease = self._by_address.get(address)
        return self._touch(lease, now).name if lease is not None else None

    def _touch(self, lease: _Lease, now: float) -> _Lease:
        lease.used = now
        self._by_name.move_to_end(lease.name)
        return lease

    def _unused_address(self) -> bytes:
        # Ends: at least one address is free whenever this is called.
        while True:
            address = (self._base + self._next % self._addresses).to_bytes(self._width, "big")
            self._next += 1
            if address not in self._by_address:
                return address


def reverse_address(name: str) -> bytes | None:
    """The address that a PTR question for ``name`` (lower case, no last dot) is about (RFC 1035 section 3.5,
    RFC 3596 section 2.5); None when it is about no whole address."""
    try:
        if name.endswith(IPV4_SUFFIX):
            octets = name.removesuffix(IPV4_SUFFIX).split(".")
            return ipaddress.IPv4Address(".".join(reversed(octets))).packed
        if name.endswith(IPV6_SUFFIX):
            digits = name.removesuffix(IPV6_SUFFIX).split(".")
            if len(digits) == 32 and all(len(digit) == 1 for digit in digits):
                return bytes.fromhex("".join(reversed(digits)))
    except ValueError:
        return None
    return None
