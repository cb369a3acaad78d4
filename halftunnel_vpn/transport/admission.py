"""Who may connect: bounds on connections and on how fast they come, in all and per peer, and whose word on a
peer's address counts.

A connection is a stranger's until its leg has joined a session. Whoever replays a handshake, guesses one or
looks at the web site costs a TLS handshake each time, so strangers have a bound of their own, far below that
of all arrivals: one too many is closed before TLS. A client that joins gets back what its arrival took.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

PeerKey = tuple[int, int]
"""What is counted as one peer: IP version, and the address or the upper half of it."""

MAX_FORWARDED_HOPS = 16
"""Entries of X-Forwarded-For that are looked at, from the right."""

BURST = 8.0
"""Seconds' worth of arrivals that one peer may make at once after as long a silence."""

BURST_OF_ALL = 2.0
"""The same for all peers together."""

MAX_PEERS = 4096
"""Peers whose arrivals are remembered; the one longest unheard of makes room."""


@dataclass(frozen=True, slots=True)
class ListenLimits:
    """Bounds of one listener."""

    max_connections: int = 4096
    """Connections at once, whatever state they are in."""
    max_connections_per_peer: int = 256
    """Connections at once from one IPv4 address or one IPv6 /64."""
    arrivals_per_peer: int = 32
    """Connections a second of one peer, once it has used up its burst; one too many is closed at once."""
    arrivals: int = 128
    """Connections a second of all peers, once their burst is used up; more wait until they are accepted."""
    strangers_per_peer: int = 8
    """Those of ``arrivals_per_peer`` that do not lead into a session; one too many is closed at once."""
    strangers: int = 64
    """Those of ``arrivals`` that do not lead into a session; more wait until they are accepted."""
    request_timeout: float = 10.0
    """Seconds from the accepted connection to a whole request, the TLS handshake included."""


class Bucket:
    """How fast something may happen: ``rate`` times a second, and ``burst`` seconds' worth of it at once."""

    __slots__ = ("_burst", "_rate", "_updated", "left")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = rate * burst
        self._updated = now
        self.left = self._burst

    def is_empty(self, now: float) -> bool:
        """Whether it is too soon for once more."""
        self._refill(now)
        return self.left < 1

    def take(self, now: float) -> bool:
        """Once more; False when that is too soon, and then it does not count."""
        if self.is_empty(now):
            return False
        self.left -= 1
        return True

    def give_back(self) -> None:
        """What was counted once does not count after all."""
        self.left += 1

    def wait(self, now: float) -> float:
        """Count once more, and return the seconds until that may happen."""
        self._refill(now)
        self.left -= 1
        return max(0.0, -self.left / self._rate)

    def _refill(self, now: float) -> None:
        self.left = min(self._burst, self.left + (now - self._updated) * self._rate)
        self._updated = now


class PeerRate:
    """How fast one peer may come."""

    __slots__ = ("all", "strangers")

    def __init__(self, limits: ListenLimits, now: float) -> None:
        self.all = Bucket(limits.arrivals_per_peer, BURST, now)
        self.strangers = Bucket(limits.strangers_per_peer, BURST, now)

    def one_more(self, now: float) -> str | None:
        """Count one, a stranger's until it is proven; why not when it comes too soon."""
        if self.strangers.is_empty(now):
            return "stranger-rate"
        if not self.all.take(now):
            return "peer-rate"
        self.strangers.take(now)
        return None


class Admission:
    """Counts the connections of one listener. Trusted proxies are not peers: they have no bound of their own,
    and their connections are charged to whoever stands behind them.
    """

    def __init__(self, limits: ListenLimits, trusted_proxies: Iterable[IpNetwork] = ()) -> None:
        self._limits = limits
        self._trusted = tuple(trusted_proxies)
        self._per_peer: dict[PeerKey, int] = {}
        self._arrivals: OrderedDict[PeerKey, PeerRate] = OrderedDict()  # the longest unheard of comes first
        self._all = Bucket(limits.arrivals, BURST_OF_ALL, 0.0)
        self._strangers = Bucket(limits.strangers, BURST_OF_ALL, 0.0)
        self.connections = 0

    def set_limits(self, limits: ListenLimits, trusted_proxies: Iterable[IpNetwork]) -> None:
        """Use other bounds from now on; connections that exist count on."""
        if limits != self._limits:
            self._limits = limits
            self._arrivals.clear()
            self._all = Bucket(limits.arrivals, BURST_OF_ALL, 0.0)
            self._strangers = Bucket(limits.strangers, BURST_OF_ALL, 0.0)
        self._trusted = tuple(trusted_proxies)

    def admit(self, peer: IpAddress, now: float) -> Ticket | str:
        """A ticket for a connection that arrives ``now``, or why there is none.

        ``stranger-rate``, ``peer-rate``, ``connection-limit``, ``peer-limit``.
        """
        if not self.is_trusted(peer) and (refusal := self.arrive(peer, now)) is not None:
            return refusal
        if self.connections >= self._limits.max_connections:
            return "connection-limit"
        ticket = Ticket(self, peer)
        if not self.is_trusted(peer) and not ticket.charge(peer):
            return "peer-limit"
        self.connections += 1
        return ticket

    def arrive(self, peer: IpAddress, now: float) -> str | None:
        """Count one more arrival of ``peer``, or say what is exceeded: ``stranger-rate``, ``peer-rate``."""
        key = _key_of(peer)
        arrivals = self._arrivals.pop(key, None)
        if arrivals is None:
            if len(self._arrivals) >= MAX_PEERS:
                self._arrivals.popitem(last=False)
            arrivals = PeerRate(self._limits, now)
        self._arrivals[key] = arrivals
        return arrivals.one_more(now)

    def pause(self, now: float) -> float:
        """Count one more arrival in all, and return the seconds until the next one should be accepted."""
        return max(self._all.wait(now), self._strangers.wait(now))

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

    __slots__ = ("_admission", "_key", "_proven", "_returned", "peer")

    def __init__(self, admission: Admission, peer: IpAddress) -> None:
        self._admission = admission
        self._key: PeerKey | None = None
        self._proven = False
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

    def prove(self) -> None:
        """The connection has joined a session: no stranger's after all. Idempotent."""
        if self._proven:
            return
        self._proven = True
        self._admission._strangers.give_back()
        arrivals = None if self._key is None else self._admission._arrivals.get(self._key)
        if arrivals is not None:
            arrivals.strangers.give_back()

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
