"""Which stream sends next: two classes, and deficit round robin (Shreedhar and Varghese, 1995) in each.

A turn is rounded to whole trains, and the difference counts in the next one: a turn that
ended in the middle of a train would split every piece.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.protocol.wire import HEADER_LENGTH
from halftunnel_vpn.session.legs import SessionLeg
from halftunnel_vpn.session.stream import Stream
from halftunnel_vpn.session.train import Train

URGENT_SHARE: Final = 3 / 4
"""Part of each train that urgent streams may take, on average, while bulk streams wait."""


class Scheduler:
    """The streams that have something to send.

    Control, DNS, datagrams and young interactive streams are urgent and go first; bulk transfers take turns.
    ``served`` is called with each stream that has nothing more to send.
    """

    __slots__ = ("_bulk", "_served", "_urgent", "_urgent_credit")

    def __init__(self, served: Callable[[Stream], None]) -> None:
        self._served = served
        self._urgent: deque[Stream] = deque()
        self._bulk: deque[Stream] = deque()
        self._urgent_credit = 0

    def __bool__(self) -> bool:
        return bool(self._urgent or self._bulk)

    @property
    def has_urgent(self) -> bool:
        """Whether an urgent stream has something to send."""
        return bool(self._urgent)

    @property
    def only(self) -> Stream | None:
        """The one stream that has something to send, if there is one and it is urgent."""
        return self._urgent[0] if len(self._urgent) == 1 and not self._bulk else None

    def remove_only(self) -> None:
        """Remove the stream that :attr:`only` is: it has sent everything and is not over."""
        self._urgent.pop().queue = None
        self._urgent_credit = 0

    def activate(self, stream: Stream) -> None:
        """Queue a stream that has something to send and is not queued."""
        queue = self._urgent if stream.is_urgent else self._bulk
        stream.queue = queue
        queue.append(stream)

    def fill(self, train: Train, leg: SessionLeg, now: float) -> None:
        """Add packets to ``train`` until it is full or nothing is left that may go on ``leg``."""
        urgent, bulk = self._urgent, self._bulk
        in_flight = leg.under_way
        size = train.size if train.is_cell else in_flight.pacer.train
        if in_flight.is_full or leg.is_reserved:
            self._serve(urgent, train, leg, size, 0, now)
            return
        if not (urgent and bulk):
            self._urgent_credit = 0
            self._serve(urgent or bulk, train, leg, size, 0, now)
            return
        # neither runs of datagrams nor pieces of bulk are split, so the share holds over several trains
        credit = min(self._urgent_credit, 0) + int(size * URGENT_SHARE)
        before = train.room
        self._serve(urgent, train, leg, size, max(before - credit, 0), now)
        between = train.room
        self._serve(bulk, train, leg, size, 0, now)
        credit -= before - between + train.room
        self._serve(urgent, train, leg, size, 0, now)
        self._urgent_credit = credit + train.room

    def needs(self, leg: SessionLeg) -> int:
        """Return the room that some stream needs to send anything on ``leg``; 0 when none could."""
        least = 0
        for queue in (self._urgent, self._bulk):
            for stream in queue:
                if not stream.must_wait(leg):
                    needed = stream.needs
                    least = min(least or needed, needed)
        return least

    def waits(self, least: int) -> bool:
        """Return whether ``least`` bytes or more wait to be sent for the first time."""
        count = 0
        for queue in (self._urgent, self._bulk):
            for stream in queue:
                count += stream.sending.unsent_bytes
                if count >= least:
                    return True
        return False

    def _serve(
        self, queue: deque[Stream], train: Train, leg: SessionLeg, size: int, reserve: int, now: float
    ) -> None:
        """Add packets of ``queue`` until the train has ``size`` bytes, or room for ``reserve`` more at most.

        A turn of a stream is ``size`` bytes, on average.
        """
        reserve = max(reserve, train.size - size)
        turn_is_over = size // 2  # a deficit below which the rest of a turn waits for the next one
        idle_turns = 0  # streams in a row that could add nothing (their OPEN is on another leg)
        while queue and train.room > HEADER_LENGTH + reserve and idle_turns < len(queue):
            stream = queue[0]
            if stream.deficit < turn_is_over:
                stream.deficit += size
            added = stream.fill(train, leg, train.room - reserve, now)
            stream.deficit -= added
            if not stream.has_something_to_send:
                queue.popleft()
                stream.queue = None
                stream.deficit = min(stream.deficit, 0)  # a debt stays, a surplus does not
                self._served(stream)
            elif queue is self._urgent and not stream.is_urgent:
                queue.popleft()
                stream.queue = self._bulk
                self._bulk.append(stream)
            elif stream.deficit < turn_is_over or stream.must_wait(leg):
                queue.rotate(-1)
                idle_turns = 0 if added else idle_turns + 1
            else:
                return  # the train is full; the stream keeps what is left of its turn
