"""Answers remembered for as long as their TTLs allow, within bounds of number and size."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.answer import Answer
from halftunnel_vpn.dns.message_reader import Rcode

ENTRY_OVERHEAD = 600
"""Bytes that an entry is taken to cost beside its message and its TTLs."""

TTL_OVERHEAD = 80
"""Bytes that each TTL of an answer is taken to cost."""

FAILURE_LIFETIME = 1
"""Seconds for which a resolver's SERVFAIL is repeated rather than asked for again (RFC 9520 section 3.2)."""


@dataclass(frozen=True)
class CacheLimits:
    """Bounds of a cache: entries, bytes, and the seconds that TTLs are moved to within.

    A negative answer has a ceiling of its own.
    """

    max_entries: int = 10_000
    max_bytes: int = 16 * 1024 * 1024
    ttl_floor: int = 0
    ttl_ceiling: int = 86_400
    negative_ceiling: int = 900


class _CachedAnswer:
    __slots__ = ("answer", "cost", "expires", "stored")

    def __init__(self, answer: Answer, cost: int, stored: float, expires: float) -> None:
        self.answer = answer
        self.cost = cost
        self.stored = stored
        self.expires = expires


class DnsCache:
    """Answers by the key of their query; the one unused for longest gives way to a new one."""

    def __init__(self, limits: CacheLimits, counters: Counters) -> None:
        self._limits = limits
        self._counted = counters.counted
        self._entries: OrderedDict[bytes, _CachedAnswer] = OrderedDict()
        self.bytes = 0
        """What all entries together are taken to cost."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> tuple[Answer, int] | None:
        """The answer and its age in whole seconds; None when there is none that is still valid."""
        entry = self._entries.get(key)
        if entry is None:
            self._counted["dns-cache-misses"] += 1
            return None
        if now >= entry.expires:
            self._remove(key)
            self._counted["dns-cache-expired"] += 1
            self._counted["dns-cache-misses"] += 1
            return None
        self._entries.move_to_end(key)
        self._counted["dns-cache-hits"] += 1
        return entry.answer, int(now - entry.stored)

    def put(self, key: bytes, answer: Answer, now: float) -> None:
        """Remember ``answer`` and move its TTLs to within the bounds, unless it may not be remembered."""
        limits = self._limits
        lifetime = self._lifetime(answer)
        if lifetime <= 0:
            return
        answer.bound_ttls(
            min(limits.ttl_floor, lifetime), lifetime if answer.negative else limits.ttl_ceiling
        )
        cost = len(key) + len(answer.wire) + TTL_OVERHEAD * len(answer.ttls) + ENTRY_OVERHEAD
        if cost > limits.max_bytes or limits.max_entries <= 0:
            return
        if key in self._entries:
            self._remove(key)
        while len(self._entries) >= limits.max_entries or self.bytes + cost > limits.max_bytes:
            self._remove(next(iter(self._entries)))
            self._counted["dns-cache-evicted"] += 1
        self._entries[key] = _CachedAnswer(answer, cost, now, now + lifetime)
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
