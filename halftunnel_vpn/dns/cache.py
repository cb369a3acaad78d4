"""Cache DNS answers within bounds of number, size and time.

An answer is fresh for its TTL. After that it may be served stale for a bounded time (RFC 8767), so that a
slow or failing resolver delays nobody. Near the end of its TTL, and while it is stale, the cache asks for a
refresh.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.answer import Answer
from halftunnel_vpn.dns.message_reader import Rcode

ENTRY_OVERHEAD = 600
"""Bytes that an entry is taken to cost beside its message and its TTLs."""

TTL_OVERHEAD = 80
"""Bytes that each TTL of an answer is taken to cost."""

FAILURE_LIFETIME = 1
"""Seconds for which a resolver's SERVFAIL is repeated rather than asked for again (RFC 9520 section 3.2)."""

STALE_TTL = 30
"""TTL, in seconds, of an answer that is served stale (RFC 8767 section 5)."""

REFRESH_INTERVAL = 30
"""Seconds between two refreshes of one answer, when the first brings nothing (RFC 8767 section 5)."""

PREFETCH_PART = 10
"""A refresh is due in the last 1/PREFETCH_PART of the lifetime."""

MIN_PREFETCH_LIFETIME = 10
"""Seconds; an answer that lives shorter is not refreshed before its end."""


@dataclass(frozen=True)
class CacheLimits:
    """Bounds of a cache: entries, bytes, and the seconds that TTLs are moved to within.

    A negative answer has a ceiling of its own. ``max_stale``: seconds for which an answer with addresses or
    other records is served after its TTL, 0 for none. ``prefetch``: report a refresh as due before the TTL
    ends.
    """

    max_entries: int = 10_000
    max_bytes: int = 16 * 1024 * 1024
    ttl_floor: int = 0
    ttl_ceiling: int = 86_400
    negative_ceiling: int = 900
    max_stale: int = 0
    prefetch: bool = False


class CacheHit(NamedTuple):
    """A cached answer and its age in whole seconds; ``is_due``: the caller should refresh it now."""

    answer: Answer
    age: int
    is_due: bool


class _CacheEntry:
    """One answer. All times are the caller's clock."""

    __slots__ = ("answer", "cost", "expires", "is_stale", "refresh_at", "removed_at", "stored")

    def __init__(self, answer: Answer, cost: int, stored: float, expires: float, limits: CacheLimits) -> None:
        self.answer = answer
        self.cost = cost
        self.stored = stored
        # The end of the TTL.
        self.expires = expires
        # The end of service, stale or not.
        self.removed_at = expires
        # When a query next makes a refresh due.
        self.refresh_at = expires
        self.is_stale = False
        if answer.negative or answer.rcode != Rcode.NOERROR:
            return
        self.removed_at = expires + limits.max_stale
        lifetime = expires - stored
        if limits.prefetch and lifetime >= MIN_PREFETCH_LIFETIME:
            self.refresh_at = expires - lifetime / PREFETCH_PART


class DnsCache:
    """Answers by the key of their query; the one unused for longest gives way to a new one."""

    def __init__(self, limits: CacheLimits, counters: Counters) -> None:
        self._limits = limits
        self._counted = counters.counted
        self._entries: OrderedDict[bytes, _CacheEntry] = OrderedDict()
        self.bytes = 0
        """What all entries together are taken to cost."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> CacheHit | None:
        """Return the answer for ``key``, fresh or stale; None if there is none.

        A stale answer has the TTL STALE_TTL. A refresh is reported as due once in REFRESH_INTERVAL.
        """
        entry = self._entries.get(key)
        if entry is None:
            self._counted["dns-cache-misses"] += 1
            return None
        if now >= entry.removed_at:
            self._remove(key)
            self._counted["dns-cache-expired"] += 1
            self._counted["dns-cache-misses"] += 1
            return None
        self._entries.move_to_end(key)
        self._counted["dns-cache-hits"] += 1
        is_due = now >= entry.refresh_at
        if is_due:
            entry.refresh_at = now + REFRESH_INTERVAL
        if now < entry.expires:
            return CacheHit(entry.answer, int(now - entry.stored), is_due)
        self._counted["dns-cache-stale-hits"] += 1
        if not entry.is_stale:
            entry.is_stale = True
            entry.answer.bound_ttls(STALE_TTL, STALE_TTL)
        return CacheHit(entry.answer, 0, is_due)

    def put(self, key: bytes, answer: Answer, now: float) -> None:
        """Remember ``answer`` and move its TTLs to within the bounds, unless it may not be remembered.

        A resolver's failure does not replace an answer that is still served. Any other answer ends it, even
        one that may not be remembered (RFC 8767 section 5).
        """
        limits = self._limits
        known = self._entries.get(key)
        if known is not None and answer.rcode == Rcode.SERVFAIL and now < known.removed_at:
            return
        lifetime = self._lifetime(answer)
        if lifetime <= 0:
            if known is not None and answer.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN) and not answer.truncated:
                self._remove(key)
            return
        answer.bound_ttls(
            min(limits.ttl_floor, lifetime), lifetime if answer.negative else limits.ttl_ceiling
        )
        cost = len(key) + len(answer.wire) + TTL_OVERHEAD * len(answer.ttls) + ENTRY_OVERHEAD
        if cost > limits.max_bytes or limits.max_entries <= 0:
            return
        if known is not None:
            self._remove(key)
        while len(self._entries) >= limits.max_entries or self.bytes + cost > limits.max_bytes:
            self._remove(next(iter(self._entries)))
            self._counted["dns-cache-evicted"] += 1
        self._entries[key] = _CacheEntry(answer, cost, now, now + lifetime, limits)
        self.bytes += cost

    def clear(self) -> None:
        """Forget everything: the answers of another network or another exit may be others."""
        self._entries.clear()
        self.bytes = 0

    def _lifetime(self, answer: Answer) -> int:
        if answer.rcode == Rcode.SERVFAIL and not answer.truncated:
            return FAILURE_LIFETIME
        if answer.lifetime is None:
            return 0
        limits = self._limits
        ceiling = limits.negative_ceiling if answer.negative else limits.ttl_ceiling
        return min(max(answer.lifetime, limits.ttl_floor), ceiling)

    def _remove(self, key: bytes) -> None:
        self.bytes -= self._entries.pop(key).cost
