"""The acknowledgements and credits that a session owes its peer, and when they leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.stream_messages import encode_credit
from halftunnel_vpn.protocol.wire import HEADER_LENGTH, PacketType, encode_header
from halftunnel_vpn.session.legs import SessionLeg
from halftunnel_vpn.session.receive_side import ReceiveSide
from halftunnel_vpn.session.send_side import SERIAL_MASK
from halftunnel_vpn.session.train import Train
from halftunnel_vpn.timers import Wheel

ACK_DELAY: Final = 0.02
"""Seconds an acknowledgement may wait for a packet that carries it."""

RECEIPT_DELAY: Final = 0.02
"""Seconds a receipt may wait for a train that carries it."""

ACK_LENGTH: Final = HEADER_LENGTH + 8

MAX_STATELESS: Final = 4096
"""Acknowledgements for streams that are over, waiting for a leg."""


class Acknowledgements:
    """The acknowledgements of one session. ``wake`` is called when one must leave with the next train."""

    __slots__ = (
        "_counters",
        "_due_receipts",
        "_now",
        "_receipt_timer",
        "_session_id",
        "_soon",
        "_stateless",
        "_timer",
        "_wake",
        "is_shaped",
        "riding",
    )

    def __init__(self, session_id: bytes, wheel: Wheel, wake: Callable[[], None], counters: Counters) -> None:
        self._session_id = session_id
        self._wake = wake
        self._counters = counters
        self._now: dict[ReceiveSide, None] = {}
        self._soon: dict[ReceiveSide, float] = {}
        self._stateless: dict[int, int] = {}
        self._due_receipts = False
        self.riding: dict[SessionLeg, None] = {}
        """Legs whose receipts leave with the next train."""
        self.is_shaped = False
        """Whether this end's own records run on a clock, in which receipts ride."""
        self._timer = wheel.timer(self._due)
        self._receipt_timer = wheel.timer(self._receipts_due)

    def __bool__(self) -> bool:
        return bool(self._now or self._stateless or self._due_receipts)

    def now(self, receiving: ReceiveSide) -> None:
        """Send credit and acknowledgement of a stream with the next train."""
        self._soon.pop(receiving, None)
        self._now[receiving] = None
        self._wake()

    def soon(self, receiving: ReceiveSide, now: float) -> None:
        """Send them after ACK_DELAY unless a packet of the stream carries the acknowledgement before.

        Call it for the first packet that is owed one, not for those that follow it.
        """
        if receiving not in self._now:
            self._soon[receiving] = now
            if not self._timer.armed:
                self._timer.arm(now + ACK_DELAY)

    def stateless(self, stream_id: int, number: int) -> None:
        """Acknowledge a packet of a stream that is over or keeps no numbers."""
        if len(self._stateless) >= MAX_STATELESS and stream_id not in self._stateless:
            self._counters.drop("ack-queue-full")  # the peer will retry
            return
        self._stateless[stream_id] = number & SERIAL_MASK
        self._wake()

    def receipt(self, leg: SessionLeg) -> None:
        """Send a receipt for ``leg`` with the next train, and wake for it."""
        self.riding[leg] = None
        self._due_receipts = True
        self._wake()

    def receipt_soon(self, leg: SessionLeg, now: float) -> None:
        """Send a receipt for ``leg`` with the next train, within RECEIPT_DELAY."""
        if leg not in self.riding:
            self.riding[leg] = None
            if not self._receipt_timer.armed:
                self._receipt_timer.arm(now + RECEIPT_DELAY)

    def receipt_of_padding(self, leg: SessionLeg, now: float) -> None:
        """Send a receipt for ``leg``, on which only padding comes: on a clock with the next train."""
        if self.is_shaped:
            self.riding[leg] = None
        else:
            self.receipt_soon(leg, now)

    def discard(self, receiving: ReceiveSide) -> None:
        """Send nothing more for a stream."""
        self._now.pop(receiving, None)
        self._soon.pop(receiving, None)

    def settle(self, receiving: ReceiveSide) -> None:
        """Keep what is owed for a stream that is over: it needs only the number."""
        if receiving in self._now or receiving in self._soon:
            self.discard(receiving)
            self.stateless(receiving.stream_id, receiving.expected)

    def clear(self) -> None:
        """Discard everything: the session is over."""
        self._timer.cancel()
        self._receipt_timer.cancel()
        self._now.clear()
        self._soon.clear()
        self._stateless.clear()
        self.riding.clear()
        self._due_receipts = False

    def write(self, train: Train) -> None:
        """Add ACK packets to ``train``, as many as fit."""
        session_id = self._session_id
        while self._now and train.room >= ACK_LENGTH:
            receiving, _ = self._now.popitem()
            receiving.packets_unacknowledged = 0
            receiving.bytes_unacknowledged = 0
            number = receiving.expected & SERIAL_MASK
            header = encode_header(PacketType.ACK, session_id, receiving.stream_id, 0, number, 8)
            train.parts.append(header + encode_credit(receiving.window.granted))
            train.room -= ACK_LENGTH
            train.packets += 1
        self.write_receipts(train)
        while self._stateless and train.room >= ACK_LENGTH:
            stream_id, number = self._stateless.popitem()
            header = encode_header(PacketType.ACK, session_id, stream_id, 0, number, 8)
            train.parts.append(header + encode_credit(0))
            train.room -= ACK_LENGTH
            train.packets += 1

    def write_receipts(self, train: Train) -> None:
        """Add receipts to ``train``, as many as fit."""
        while self.riding and train.room >= ACK_LENGTH:
            leg, _ = self.riding.popitem()
            leg.untold_bytes = 0
            leg.told_at = leg.last_received
            leg.gives_receipts = True
            stamp = int(leg.last_received * 1e6) & SERIAL_MASK or 1
            header = encode_header(PacketType.ACK, self._session_id, 0, leg.number, stamp, 8)
            train.parts.append(header + encode_credit(leg.records_received))
            train.room -= ACK_LENGTH
            train.packets += 1
        self._due_receipts = self._due_receipts and bool(self.riding)

    def _receipts_due(self, now: float) -> None:
        if self.riding:
            self._due_receipts = True
            self._wake()

    def _due(self, now: float) -> None:
        """Send what has waited for ACK_DELAY. One timer serves all streams, so each is checked."""
        waiting = {}
        for receiving, since in self._soon.items():
            if not receiving.packets_unacknowledged:
                continue  # a packet has carried it
            if now - since >= ACK_DELAY:
                self._now[receiving] = None
            else:
                waiting[receiving] = since
        self._soon = waiting
        if waiting:
            self._timer.arm(min(waiting.values()) + ACK_DELAY)
        if self._now:
            self._wake()
