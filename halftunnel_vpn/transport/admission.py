"""Admission of connections: bounds on their number and rate, in total and per peer, and the proxies that
are trusted to name a peer's address.

A connection is a stranger's until its leg has joined a session. Replayed or guessed handshakes and
requests for the web site cost a TLS handshake each, so strangers have a bound of their own, far below that
of all arrivals: one too many is closed before TLS. A client that joins gets back what its arrival took.

No client waits in a queue that strangers can fill. What a peer may not do by its own bound is closed without
being charged to the bounds of all. When those are used up, two kinds of peers still come in: those that have
joined lately, and those that have hardly come at all, which have a reserve. An IPv6 peer is bounded as a /64,
as a /56 and as a /48, because the owner of one address often has that many.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

PeerKey = tuple[int, int]
"""What counts as one peer: the length of a prefix (IPv4: 0) and its value."""

IPV6_PREFIXES = ((64, 1), (56, 2), (48, 4))
"""Networks that are counted, and how many times the bound of a peer each may use up."""

RARE_RATE = 0.25
"""Arrivals a second of a peer that count as rare, so that the reserve is open to it."""

RARE_BURST = 16.0
"""Seconds' worth of them at once."""

MAX_KNOWN = 4096
"""Peers that have joined lately; the oldest is forgotten first."""

KNOWN_FOR = 86400.0
"""Seconds for which a peer that has joined counts as known."""

SHARE_OF_KNOWN = 8
"""1/N of all connections is kept for peers that are known."""

MAX_FORWARDED_HOPS = 16
"""Entries of X-Forwarded-For that are read, from the right."""

BURST = 8.0
"""Seconds' worth of arrivals that one peer may make at once after as long a silence."""

BURST_OF_ALL = 2.0
"""The same for all peers together."""

MAX_PEERS = 4096
"""Peers whose arrivals are remembered; the one that was silent for longest is forgotten first."""


@dataclass(frozen=True, slots=True)
class ListenLimits:
    """Bounds of one listener."""

    max_connections: int = 4096
    """Connections at once, whatever state they are in."""
    max_connections_per_peer: int = 256
    """Connections at once from one IPv4 address or one IPv6 /64; twice as many from a /56, four
    times as many from a /48."""
    arrivals_per_peer: int = 32
    """Connections a second of one peer, once it has used up its burst; one too many is closed at once."""
    arrivals: int = 128
    """Connections a second of all peers, once their burst is used up; one too many is closed at once."""
    strangers_per_peer: int = 8
    """Those of ``arrivals_per_peer`` that do not lead into a session; one too many is closed at once."""
    strangers: int = 64
    """Those of ``arrivals`` that do not lead into a session; one too many is closed, unless its peer is known
    or comes rarely: such peers have as many again."""
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
        """Return whether one more would be too soon."""
        self._refill(now)
        return self.left < 1

    def take(self, now: float) -> bool:
        """Count one more; return False, without counting it, if it comes too soon."""
        if self.is_empty(now):
            return False
        self.left -= 1
        return True

    def give_back(self) -> None:
        """Uncount one."""
        self.left += 1

    def _refill(self, now: float) -> None:
        self.left = min(self._burst, self.left + (now - self._updated) * self._rate)
        self._updated = now


class PeerRate:
    """The rate of one peer."""

    __slots__ = ("all", "rare", "strangers")

    def __init__(self, limits: ListenLimits, factor: int, now: float) -> None:
        self.all = Bucket(limits.arrivals_per_peer * factor, BURST, now)
        self.strangers = Bucket(limits.strangers_per_peer * factor, BURST, now)
        self.rare = Bucket(RARE_RATE * factor, RARE_BURST, now)

    def refusal(self, now: float) -> str | None:
        """Why one more would come too soon; None when it may come."""
        if self.strangers.is_empty(now):
            return "stranger-rate"
        return "peer-rate" if self.all.is_empty(now) else None

    def take(self, now: float) -> None:
        """Count one, a stranger's until it is proven."""
        self.all.take(now)
        self.strangers.take(now)
        self.rare.take(now)

    def give_back(self) -> None:
        """Mark the one that was counted as a client's."""
        self.strangers.give_back()
        self.rare.give_back()


class Admission:
    """Counts the connections of one listener. Trusted proxies are not peers: they have no bound of their own,
    and their connections are charged to the clients behind them.
    """

    def __init__(self, limits: ListenLimits, trusted_proxies: Iterable[IpNetwork] = ()) -> None:
        self._limits = limits
        self._trusted = tuple(trusted_proxies)
        self._per_peer: dict[PeerKey, int] = {}
        # By time of the last arrival, the oldest first.
        self._arrivals: OrderedDict[PeerKey, PeerRate] = OrderedDict()
        # When each peer last joined a session, the oldest first.
        self._known: OrderedDict[PeerKey, float] = OrderedDict()
        self._make_buckets()
        self.connections = 0

    def set_limits(self, limits: ListenLimits, trusted_proxies: Iterable[IpNetwork]) -> None:
        """Use other bounds from now on; existing connections stay counted."""
        if limits != self._limits:
            self._limits = limits
            self._arrivals.clear()
            self._make_buckets()
        self._trusted = tuple(trusted_proxies)

    def _make_buckets(self) -> None:
        self._all = Bucket(self._limits.arrivals, BURST_OF_ALL, 0.0)
        self._strangers = Bucket(self._limits.strangers, BURST_OF_ALL, 0.0)
        # For peers that come rarely, when the others have used up what all may do.
        self._reserve = Bucket(self._limits.strangers, BURST_OF_ALL, 0.0)

    def admit(self, peer: IpAddress, now: float) -> Ticket | str:
        """Return a ticket for a connection that arrives ``now``, or the reason for refusing it.

        ``stranger-rate``, ``peer-rate``, ``arrival-rate``, ``connection-limit``, ``peer-limit``.
        """
        trusted = self.is_trusted(peer)
        reserve = 0 if trusted or self.is_known(peer, now) else self._limits.max_connections // SHARE_OF_KNOWN
        if self.connections >= self._limits.max_connections - reserve:
            return "connection-limit"
        ticket = Ticket(self, peer)
        if not trusted:
            refusal = self.arrive(peer, now)
            if refusal is not None:
                return refusal
            if not ticket.charge(peer):
                return "peer-limit"
        self.connections += 1
        return ticket

    def arrive(self, peer: IpAddress, now: float) -> str | None:
        """Count one more arrival of ``peer``, or return the bound that is exceeded, without counting.

        ``stranger-rate``, ``peer-rate``, ``arrival-rate``.
        """
        rates = [self._rate_of(key, factor, now) for key, factor in _keys_of(peer)]
        for rate in rates:
            refusal = rate.refusal(now)
            if refusal is not None:
                return refusal
        if not self.is_known(peer, now) and not self._take_of_all(rates, now):
            return "arrival-rate"
        for rate in rates:
            rate.take(now)
        return None

    def _take_of_all(self, rates: Sequence[PeerRate], now: float) -> bool:
        """Charge the bounds of all for a peer that is not known."""
        if not (self._all.is_empty(now) or self._strangers.is_empty(now)):
            self._all.take(now)
            return self._strangers.take(now)
        return not any(rate.rare.is_empty(now) for rate in rates) and self._reserve.take(now)

    def _rate_of(self, key: PeerKey, factor: int, now: float) -> PeerRate:
        rate = self._arrivals.pop(key, None)
        if rate is None:
            if len(self._arrivals) >= MAX_PEERS:
                self._arrivals.popitem(last=False)
            rate = PeerRate(self._limits, factor, now)
        self._arrivals[key] = rate
        return rate

    def is_known(self, peer: IpAddress, now: float) -> bool:
        """Return whether ``peer`` has joined a session lately."""
        (key, _), *_ = _keys_of(peer)
        joined = self._known.get(key)
        return joined is not None and now - joined < KNOWN_FOR

    def joined(self, peer: IpAddress, now: float) -> None:
        """A connection of ``peer`` has joined a session: its arrival was a client's."""
        keys = _keys_of(peer)
        key = keys[0][0]
        self._known.pop(key, None)
        if len(self._known) >= MAX_KNOWN:
            self._known.popitem(last=False)
        self._known[key] = now
        self._strangers.give_back()
        for key, _ in keys:
            rate = self._arrivals.get(key)
            if rate is not None:
                rate.give_back()

    def is_trusted(self, address: IpAddress) -> bool:
        """Return whether this is one of our own proxies."""
        return any(address in network for network in self._trusted)

    def origin(self, peer: IpAddress, forwarded_for: Sequence[str]) -> IpAddress:
        """Return the origin of a request, by the X-Forwarded-For headers of trusted proxies.

        From the right, the first address that is not a trusted proxy: what stands to its left may be forged.
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

    __slots__ = ("_admission", "_charged", "_proven", "_returned", "peer")

    def __init__(self, admission: Admission, peer: IpAddress) -> None:
        self._admission = admission
        self._charged: tuple[PeerKey, ...] = ()
        self._proven = False
        self._returned = False
        self.peer = peer

    def charge(self, peer: IpAddress) -> bool:
        """Count the connection as one of ``peer``; False when that peer has too many already."""
        counts = self._admission._per_peer
        limit = self._admission._limits.max_connections_per_peer
        keys = _keys_of(peer)
        charged = tuple(key for key, _ in keys)
        if charged == self._charged:
            return True
        if any(counts.get(key, 0) >= limit * factor for key, factor in keys):
            return False
        self._uncharge()
        for key in charged:
            counts[key] = counts.get(key, 0) + 1
        self._charged = charged
        self.peer = peer
        return True

    def prove(self, now: float) -> None:
        """Mark the connection as a client's: it has joined a session. Idempotent."""
        if not self._proven:
            self._proven = True
            if self._charged:
                self._admission.joined(self.peer, now)

    def give_back(self) -> None:
        """The connection is gone. Idempotent."""
        if not self._returned:
            self._returned = True
            self._admission.connections -= 1
            self._uncharge()

    def _uncharge(self) -> None:
        counts = self._admission._per_peer
        for key in self._charged:
            counts[key] -= 1
            if not counts[key]:
                del counts[key]
        self._charged = ()


def peer_key(peer: IpAddress) -> PeerKey:
    """Return what ``peer`` counts as, in the narrowest sense."""
    return _keys_of(peer)[0][0]


def _keys_of(peer: IpAddress) -> tuple[tuple[PeerKey, int], ...]:
    """Return what ``peer`` counts as, the narrowest first, and how many times a peer's bound each has."""
    if peer.version == 4:
        return (((0, int(peer)), 1),)
    return tuple(((length, int(peer) >> (128 - length)), factor) for length, factor in IPV6_PREFIXES)


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
