"""Addresses that stand for names: handed to applications, turned back into the name when a flow arrives."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

IPV4_SUFFIX = ".in-addr.arpa"
IPV6_SUFFIX = ".ip6.arpa"


class _Lease:
    __slots__ = ("address", "has_flow", "name", "used")

    def __init__(self, name: str, address: bytes, used: float) -> None:
        self.name = name
        self.address = address
        self.used = used
        # Whether a flow has ever gone to the address.
        self.has_flow = False


class FakePool:
    """Names and addresses of one network, one to one.

    At most ``max_entries`` names have an address, and at most half of the network's addresses are in use, so
    that an address rests as long as it can before it means another name. A lease that a flow has gone to is
    never taken away within ``hold`` seconds of its last use (given out, or another flow); one that was only
    given out is held for ``hold_unused`` seconds, so that a web page that makes up names by the thousand
    leaves room for others. ``first`` is where in the network the first
    address is taken: another place at every start, so that an address that an application remembers from the
    last run most likely means nothing now, rather than another name.
    """

    def __init__(
        self, network: str, *, max_entries: int, hold: float, hold_unused: float = 60.0, first: int = 0
    ) -> None:
        parsed = ipaddress.ip_network(network)
        self.version: int = parsed.version
        self._base = int(parsed.network_address) + 1
        self._addresses = parsed.num_addresses - 2
        self._width = parsed.max_prefixlen // 8
        self._prefix = parsed
        self._max_entries = min(max_entries, max(self._addresses // 2, 1))
        self._hold = hold
        self._hold_unused = min(hold, hold_unused)
        self._next = first
        self._by_name: dict[str, _Lease] = {}
        # Names in order of their last use: those that were only given out, and those with flows.
        self._given: OrderedDict[str, _Lease] = OrderedDict()
        self._with_flows: OrderedDict[str, _Lease] = OrderedDict()
        self._by_address: dict[bytes, _Lease] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, address: bytes) -> bool:
        """Return whether ``address`` (4 or 16 bytes) belongs to the network, leased or not."""
        return len(address) == self._width and ipaddress.ip_address(address) in self._prefix

    def lease(self, name: str, now: float) -> bytes | None:
        """Return the address of ``name``, a new one if it has none; None when every lease is still held."""
        address = self.address_of(name, now)
        if address is not None:
            return address
        if len(self._by_name) >= self._max_entries:
            oldest = self._oldest(now)
            if oldest is None:
                return None
            del self._by_name[oldest.name]
            del self._by_address[oldest.address]
            del (self._with_flows if oldest.has_flow else self._given)[oldest.name]
        lease = _Lease(name, self._unused_address(), now)
        self._by_name[name] = self._by_address[lease.address] = self._given[name] = lease
        return lease.address

    def address_of(self, name: str, now: float) -> bytes | None:
        """Return the address that ``name`` has; None when it has none."""
        lease = self._by_name.get(name)
        return self._touch(lease, now).address if lease is not None else None

    def name_of(self, address: bytes, now: float) -> str | None:
        """The name that ``address`` (4 or 16 bytes) stands for, for a flow that goes there; None if none."""
        lease = self._by_address.get(address)
        if lease is None:
            return None
        if not lease.has_flow:
            lease.has_flow = True
            self._with_flows[lease.name] = self._given.pop(lease.name)
        return self._touch(lease, now).name

    def look_up(self, address: bytes) -> str | None:
        """Like :meth:`name_of`, without holding the lease."""
        lease = self._by_address.get(address)
        return lease.name if lease is not None else None

    def _oldest(self, now: float) -> _Lease | None:
        """Return the lease to take away; None when all are held."""
        for leases, hold in ((self._given, self._hold_unused), (self._with_flows, self._hold)):
            oldest = next(iter(leases.values()), None)
            if oldest is not None and now - oldest.used >= hold:
                return oldest
        return None

    def _touch(self, lease: _Lease, now: float) -> _Lease:
        lease.used = now
        (self._with_flows if lease.has_flow else self._given).move_to_end(lease.name)
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
