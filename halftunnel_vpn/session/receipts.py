"""Receipts: how many bytes are under way on a leg, and how many may be.

What the road carries is bounded by its TCP; what has come to its end and has not been read is bounded by
nothing but the kernel's receive buffer, megabytes at the end of a fast road, and whatever comes behind waits
for all of it. So the receiver says how many records it has read of a leg, and the sender counts the bytes in
those that it has not. Bulk waits at a bound that follows the road: its rate and its least round trip, in the
way of BBR (Cardwell and others, 2016): the rate is the greatest of the last few samples, where samples of
times in which there was too little to send count only if they are greater; the round trip is the least there
was, and when that is old, bulk is held back for two round trips to see what it is without a queue of ours.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from halftunnel_vpn.session.pacing import Pacer

RECEIPT_BYTES: Final = 256 * 1024
"""Bytes that arrive on a leg and make a receipt leave at once; a receipt for less waits for company."""

RIDE_BYTES: Final = 2 * 1024
"""Bytes from which a receipt goes along with a train that leaves anyway."""

MIN_UNDER_WAY: Final = 448 * 1024
"""Bytes that may always be in flight on a leg. They include nearly RECEIPT_BYTES without a receipt."""

MAX_UNDER_WAY: Final = 64 * 1024 * 1024
"""Bytes that may ever be: what a session has credit for, and two products of 200 ms and 1 Gbit/s."""

PRODUCTS: Final = 3
"""Bandwidth-delay products that may be under way beyond the minimum: two while a loss is mended twice."""

MIN_SAMPLE: Final = 0.01
"""Seconds over which a rate is measured, at the least; else it is a round trip."""

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


class InFlight:
    """Bytes on one leg that no receipt has told of, and the bound on them.

    ``bytes`` counts all of them but datagrams', ``datagram_bytes`` those, which have a bound of the same size
    to themselves. ``rate`` is what the leg delivers, in bytes a second, 0 until it is known; ``round_trip``
    the seconds from a record to its receipt, at the least, infinite until known.
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
        "limit",
        "pacer",
        "rate",
        "round_trip",
    )

    def __init__(self) -> None:
        self.bytes = self.datagram_bytes = 0
        self.limit = MIN_UNDER_WAY
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
        leaves = self.pacer.departure(count, now)
        if self._probing and not self._probe_record and self.bytes < MIN_UNDER_WAY:
            self._probe_record = record  # what is ahead of it is little enough
        self.bytes += count - datagram_count
        if self.full_since is None and self.bytes >= self.limit:
            self.full_since = now
        if entries and (entries[-1].bytes < MERGED_BYTES or len(entries) >= MAX_ENTRIES):
            last = entries.pop()
            count += last.bytes
            datagram_count += last.datagram_bytes
        entries.append(_Entry(record, count, datagram_count, now, leaves))

    def idle(self) -> None:
        """Nothing waits for the leg: until what is under way has arrived, no sample says what it can do."""
        self._idle_until = self._delivered + self.bytes + self.datagram_bytes
        if self._probing:
            self._end_probe()

    def arrived(self, records: int, now: float, stamp: int = 0) -> bool:
        """The peer has received so many records, the last at ``stamp`` of its clock, in microseconds.

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
        if not stamp or newest.record != records:
            return False
        changed = pacer.measured(newest.departs, stamp, self.round_trip, self._delivered, self._is_busy, now)
        if pacer.in_flight:
            self.limit = min(self.limit, pacer.in_flight)
        elif changed:
            self._set_limit()
        return changed

    def give_up_pace(self, until: float) -> None:
        """The path loses: leave its pace to TCP ``until`` then, and let as much be in flight as without."""
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
        self.limit = min(MIN_UNDER_WAY + int(PRODUCTS * product), MAX_UNDER_WAY)
