"""Whose packets go next: two classes, and deficit round robin (Shreedhar and Varghese, 1995) in each."""

from __future__ import annotations

from collections import deque

from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.protocol.wire import HEADER_LENGTH
from halftunnel_vpn.session.datagrams import DatagramStream
from halftunnel_vpn.session.legs import LegState
from halftunnel_vpn.session.sending import Train
from halftunnel_vpn.session.stream import ByteStream

QUANTUM = 64 * 1024
"""Bytes a stream may send in one turn."""

URGENT_SHARE = MAX_TRAIN * 3 // 4
"""Bytes of a train that urgent streams may take while bulk streams wait."""

Stream = ByteStream | DatagramStream


class Scheduler:
    """The streams that have something to send.

    Control, DNS, datagrams and young interactive streams are urgent and go first; bulk transfers take turns.
    """

    __slots__ = ("_bulk", "_urgent")

    def __init__(self) -> None:
        self._urgent: deque[Stream] = deque()
        self._bulk: deque[Stream] = deque()

    def __bool__(self) -> bool:
        return bool(self._urgent or self._bulk)

    def activate(self, stream: Stream) -> None:
        """Queue a stream that has something to send and is not queued."""
        queue = self._urgent if stream.is_urgent else self._bulk
        stream.queue = queue
        queue.append(stream)

    def fill(self, train: Train, leg: LegState, now: float) -> None:
        """Add packets to ``train`` until it is full or nothing is left that may go on ``leg``."""
        if self._urgent:
            self._serve(self._urgent, train, leg, MAX_TRAIN - URGENT_SHARE if self._bulk else 0, now)
        if self._bulk:
            self._serve(self._bulk, train, leg, 0, now)

    def _serve(self, queue: deque[Stream], train: Train, leg: LegState, reserve: int, now: float) -> None:
        idle_turns = 0  # streams in a row that could add nothing (their OPEN is on another leg)
        while queue and train.room > HEADER_LENGTH + reserve and idle_turns < len(queue):
            stream = queue[0]
            if stream.deficit <= 0:
                stream.deficit += QUANTUM
            added = stream.fill(train, leg, stream.deficit, now)
            stream.deficit -= added
            idle_turns = 0 if added else idle_turns + 1
            if not stream.has_something_to_send:
                queue.popleft()
                stream.queue = None
                stream.deficit = 0
                stream.session.served(stream)
            elif queue is self._urgent and not stream.is_urgent:
                queue.popleft()
                stream.queue = self._bulk
                self._bulk.append(stream)
            elif stream.deficit <= 0 or stream.sending.waits_for_other_leg(leg):
                queue.rotate(-1)
            else:
                return  # the train is full; the stream keeps what is left of its turn
