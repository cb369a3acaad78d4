"""Who may connect: bounds on connections, in all and per peer, and whose word on a peer's address counts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

PeerKey = tuple[int, int]
"""What is counted as one peer: IP version, and the address or the upper half of it."""

MAX_FORWARDED_HOPS = 16
"""Entries of X-Forwarded-For that are looked at, from the right."""


@dataclass(frozen=True, slots=True)
class ListenLimits:
    """Bounds of one listener."""

    max_connections: int = 4096
    """Connections at once, whatever state they are in."""
    max_connections_per_peer: int = 256
    """Connections at once from one IPv4 address or one IPv6 /64."""
    request_timeout: float = 10.0
    """Seconds from the accepted connection to a whole request, the TLS handshake included."""


class Admission:
    """Counts the connections of one listener. Trusted proxies are not peers: they have no bound of their own,
    and their connections are charged to whoever stands behind them.
    """

    def __init__(self, limits: ListenLimits, trusted_proxies: Iterable[IpNetwork] = ()) -> None:
        self._limits = limits
        self._trusted = tuple(trusted_proxies)
        self._per_peer: dict[PeerKey, int] = {}
        self.connections = 0

    def admit(self, peer: IpAddress) -> Ticket | str:
        """A ticket for a connection, or why there is none: ``connection-limit``, ``peer-limit``."""
        if self.connections >= self._limits.max_connections:
            return "connection-limit"
        ticket = Ticket(self, peer)
        if not self.is_trusted(peer) and not ticket.charge(peer):
            return "peer-limit"
        self.connections += 1
        return ticket

    def is_trusted(self, address: IpAddress) -> bool:
        """Whether this is one of our own proxies."""
        return any(address in network for network in self._trusted)

    def origin(self, peer: IpAddress, forwarded_for: Sequence[str]) -> IpAddress:
        """Where a request came from, by the X-Forwarded-For headers that trusted proxies vouch for.

        From the right, the first address that is not a trusted proxy: what stands to its left may be a lie.
        """
        entries = ",".join(forwarded_for).rsplit(",", MAX_FORWARDED_HOPS)[-MAX_FORWARDED_HOPS:]
        while self.is_trusted(peer) and entries:
            previous = parse_address(entries.pop().strip())
            if previous is None:
                break
            peer = previous
        return peer


class Ticket:
    """One connection's place; given back once."""

    __slots__ = ("_admission", "_key", "_returned", "peer")

    def __init__(self, admission: Admission, peer: IpAddress) -> None:
        self._admission = admission
        self._key: PeerKey | None = None
        self._returned = False
        self.peer = peer

    def charge(self, peer: IpAddress) -> bool:
        """Count the connection as one of ``peer``; False when that peer has too many already."""
        counts = self._admission._per_peer
        key = _key_of(peer)
        if key == self._key:
            return True
        if counts.get(key, 0) >= self._admission._limits.max_connections_per_peer:
            return False
        self._uncharge()
        counts[key] = counts.get(key, 0) + 1
        self._key = key
        self.peer = peer
        return True

    def give_back(self) -> None:
        """The connection is gone. Idempotent."""
        if not self._returned:
            self._returned = True
            self._admission.connections -= 1
            self._uncharge()

    def _uncharge(self) -> None:
        counts = self._admission._per_peer
        if self._key is not None:
            counts[self._key] -= 1
            if not counts[self._key]:
                del counts[self._key]
            self._key = None


def _key_of(peer: IpAddress) -> PeerKey:
    # Whoever has one IPv6 address has a /64 of them.
    return peer.version, int(peer) >> (64 if peer.version == 6 else 0)


def parse_address(text: str) -> IpAddress | None:
    """An IP address as proxies and sockets write it: bare, in brackets, with a port or a zone, v4 in v6."""
    host = text.partition("]")[0].removeprefix("[") if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
