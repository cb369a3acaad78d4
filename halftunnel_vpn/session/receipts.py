"""Receipts: how many bytes are in flight on a leg, and how many may be.

TCP bounds the bytes on the path. But bytes that have arrived and are not read yet are only bounded by the
kernel's receive buffer, which has megabytes behind a fast path. Everything after them waits for them. So the
receiver reports how many records of a leg it has read, and the sender counts the bytes of all others. Bulk
data waits at a bound that follows the path: its rate and its least round trip, as in BBR (Cardwell and
others, 2016). The rate is the greatest of the last few samples; samples of times with too little data count
only if they are greater. If the least round trip is old, bulk data is held back for two round trips to
measure it without our own queue.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from halftunnel_vpn.session.pacing import Pacer

RECEIPT_BYTES: Final = 256 * 1024
"""Bytes that arrive on a leg and make a receipt leave at once; a receipt for less waits for company."""

RIDE_BYTES: Final = 2 * 1024
"""Bytes from which a receipt goes along with a train that leaves anyway."""

PADDING_RIDE_BYTES: Final = 64 * 1024
"""The same while nothing but padding comes,"""

PADDING_RECEIPT_INTERVAL: Final = 0.2
"""and the seconds since the last receipt after which fewer are enough."""

MIN_UNDER_WAY: Final = 448 * 1024
"""Bytes that may always be in flight on a leg. They include nearly RECEIPT_BYTES without a receipt."""

MAX_UNDER_WAY: Final = 64 * 1024 * 1024
"""The largest bound in bytes: a session's credit, more than two products of 200 ms and 1 Gbit/s."""

PRODUCTS: Final = 3
"""Bandwidth-delay products that may be under way beyond the minimum: two while a loss is mended twice."""

INTERVALS: Final = 2
"""Times between two receipts whose bytes may be under way as well, where receipts leave on a clock."""

MIN_SAMPLE: Final = 0.01
"""The shortest time in seconds over which a rate is measured; otherwise it is a round trip."""

SAMPLES: Final = 8
"""Samples of the rate of which the greatest counts."""

ROUND_TRIP_AGE: Final = 30.0
"""Seconds after which a least round trip that was not reached again is measured again."""

NEAR: Final = 1.125
"""A round trip within this factor of the least is seen as the same."""

RECORD_COST: Final = 56
"""Bytes that a record has on its path beyond its train: its tag, and the headers of WebSocket and TLS."""

MERGED_BYTES: Final = 1024
"""Records of fewer bytes are counted together with the next one."""

MAX_ENTRIES: Final = 8192
"""Records that are counted apart; further ones are counted with the last."""


class _Entry(NamedTuple):
    """Records up to number ``record``: bytes, datagrams' among them, when the last was written and leaves."""

    record: int
    bytes: int
    datagram_bytes: int
    sent_at: float
    departs: float


_new = tuple.__new__  # NamedTuple's own constructor costs more


class InFlight:
    """Bytes on one leg without a receipt, and the bound on them.

    ``bytes`` counts all of them but datagrams', ``datagram_bytes`` those, which have a bound of the same size
    to themselves. ``rate`` is what the leg delivers, in bytes a second, 0 until it is known; ``round_trip``
    the seconds from a record to its receipt, at the least, infinite until known. ``interval`` is the time
    between two receipts, in seconds, where the peer sends them on a clock; otherwise 0.
    """

    __slots__ = (
        "_delivered",
        "_entries",
        "_idle_until",
        "_probe_record",
        "_probing",
        "_samples",
        "_seen_at",
        "_window_began",
        "_window_delivered",
        "bytes",
        "datagram_bytes",
        "full_since",
        "interval",
        "is_clocked",
        "limit",
        "pacer",
        "rate",
        "round_trip",
    )

    def __init__(self) -> None:
        self.bytes = self.datagram_bytes = 0
        self.limit = MIN_UNDER_WAY
        self.interval = 0.0
        # Whether a clock limits the rate: then receipts do not show that of the path, which needs no pace.
        self.is_clocked = False
        self.pacer = Pacer()
        self.full_since: float | None = None
        """When bulk had to wait first, since it last had not to."""
        self.rate = 0.0
        self.round_trip = float("inf")
        self._entries: deque[_Entry] = deque()
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._delivered = 0
        self._idle_until = 0
        self._window_began = self._seen_at = float("-inf")
        self._window_delivered = 0
        self._probing = False
        self._probe_record = 0

    @property
    def is_full(self) -> bool:
        """Whether bulk must wait. What is small and urgent goes nevertheless."""
        return self.bytes >= self.limit

    @property
    def is_full_of_datagrams(self) -> bool:
        """Whether datagrams must wait."""
        return self.datagram_bytes >= self.limit

    @property
    def _is_busy(self) -> bool:
        """Whether there was something to send all the time, and nothing of ours held it back."""
        return self._delivered >= self._idle_until

    def sent(self, record: int, count: int, datagram_count: int, now: float) -> None:
        """``count`` bytes, ``datagram_count`` of them datagrams', leave with record ``record`` of the leg.

        The datagrams' are in ``datagram_bytes`` already.
        """
        entries = self._entries
        leaves = self.pacer.departure(count, now) if self.pacer.pace else now
        if self._probing and not self._probe_record and self.bytes < MIN_UNDER_WAY:
            self._probe_record = record  # what is ahead of it is little enough
        self.bytes += count - datagram_count
        if self.full_since is None and self.bytes >= self.limit:
            self.full_since = now
        if entries and (entries[-1].bytes < MERGED_BYTES or len(entries) >= MAX_ENTRIES):
            last = entries.pop()
            count += last.bytes
            datagram_count += last.datagram_bytes
        entries.append(_new(_Entry, (record, count, datagram_count, now, leaves)))

    def idle(self) -> None:
        """Note that no data waits. Until the data in flight has arrived, samples do not show the rate."""
        self._idle_until = self._delivered + self.bytes + self.datagram_bytes
        if self._probing:
            self._end_probe()

    def arrived(self, records: int, now: float, stamp: int = 0) -> bool:
        """Take a receipt for ``records`` records, the last received at ``stamp`` (peer's microseconds).

        0 is unknown. Returns whether the pace of the leg has changed.
        """
        entries = self._entries
        newest = None
        while entries and entries[0].record <= records:
            newest = entries.popleft()
            self.bytes -= newest.bytes - newest.datagram_bytes
            self.datagram_bytes -= newest.datagram_bytes
            self._delivered += newest.bytes
        if newest is None:
            return False
        self.full_since = None
        self._time(newest, now)
        self._measure(now)
        pacer = self.pacer
        if not stamp or newest.record != records or self.is_clocked:
            return False
        changed = pacer.measured(newest.departs, stamp, self.round_trip, self._delivered, self._is_busy, now)
        if pacer.in_flight:
            self.limit = min(self.limit, pacer.in_flight)
        elif changed:
            self._set_limit()
        return changed

    def give_up_pace(self, until: float) -> None:
        """The path is lossy: leave its pace to TCP ``until`` this time, and the bound as without a pace."""
        self.pacer.give_up(until)
        if not self._probing:
            self._set_limit()

    def _time(self, newest: _Entry, now: float) -> None:
        sample = now - newest.sent_at
        if self._probing and self._probe_record and newest.record >= self._probe_record:
            self.round_trip = sample
            self._seen_at = now
            self._end_probe()
        elif sample <= self.round_trip * NEAR:
            self.round_trip = min(self.round_trip, sample)
            self._seen_at = now
        elif now - self._seen_at > ROUND_TRIP_AGE and self._is_busy and not self._probing:
            self._probing = True
            self._probe_record = 0
            self.limit = MIN_UNDER_WAY

    def _end_probe(self) -> None:
        self._probing = False
        self._idle_until = self._delivered + self.bytes + self.datagram_bytes  # bulk was held back
        self._set_limit()

    def _measure(self, now: float) -> None:
        took = now - self._window_began
        if took < max(self.round_trip, MIN_SAMPLE):
            return
        sample = (self._delivered - self._window_delivered) / took
        if sample >= self.rate or (self._window_delivered >= self._idle_until and not self._probing):
            self._samples.append(sample)
            self.rate = max(self._samples)
            if not self._probing:
                self._set_limit()
        self._window_began = now
        self._window_delivered = self._delivered

    def _set_limit(self) -> None:
        product = self.rate * self.round_trip if self.rate else 0.0  # the round trip is infinite until known
        unreported = INTERVALS * self.rate * self.interval
        self.limit = min(MIN_UNDER_WAY + int(PRODUCTS * product + unreported), MAX_UNDER_WAY)
