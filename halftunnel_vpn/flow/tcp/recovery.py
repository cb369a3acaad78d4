"""Loss recovery: which outstanding bytes are lost, and in which order they are sent again.

With SACK this is RFC 6675, simplified: there is no rescue retransmission, and the timer repairs a lost
retransmission. Without SACK it is NewReno (RFC 6582). Duplicate acknowledgements are subtracted from the
estimate of the bytes in the network instead of added to the window. Sequence numbers are unwrapped.
"""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.flow.tcp.scoreboard import DUPLICATES, Scoreboard
from halftunnel_vpn.inet.tcp import SEQUENCE_MASK, seq_diff

NO_BLOCKS: Final[tuple[tuple[int, int], ...]] = ()


class LossRecovery:
    """A repair lasts from the first sign of a loss until all bytes outstanding then are acknowledged.

    ``active`` is True during a repair, and ``by_timeout`` if the timer began it. ``busy`` is True while there
    is any state that an acknowledgement may change. ``burst`` is how many bytes count as lost when only the
    beginning of a loss is known.
    """

    __slots__ = (
        "_board",
        "_duplicates",
        "_lost_below",
        "_mss",
        "_next",
        "_point",
        "_sack",
        "active",
        "burst",
        "busy",
        "by_timeout",
    )

    def __init__(self, mss: int, burst: int, *, sack: bool) -> None:
        self.burst = burst
        self.active = False
        self.by_timeout = False
        self.busy = False
        self._mss = mss
        self._sack = sack
        self._board = Scoreboard()
        self._duplicates = 0
        self._point = -1
        self._next = -1
        self._lost_below = -1

    def acknowledged(
        self, una: int, nxt: int, *, advanced: bool, repeated: bool, blocks: tuple[tuple[int, int], ...]
    ) -> bool:
        """Take one acknowledgement of everything before ``una``; return whether it begins fast recovery.

        ``advanced``: it acknowledges new data. ``repeated``: it is a duplicate by RFC 5681, 2. ``blocks`` are
        its SACK blocks as received.
        """
        if advanced:
            self._board.advance(una)
            self._duplicates = 0
            if self.active:
                self._repair_advanced(una, nxt)
        news = self._take_blocks(blocks, una, nxt) if blocks and self._sack else False
        if news or (repeated and not self._sack):
            self._duplicates += 1
        began = False
        if self.active:
            self._lost_below = max(self._lost_below, self._board.lost_below(self._mss))
        elif self._shows_loss(una):
            self._begin(una, nxt)
            began = True
        self.busy = self.active or self._duplicates > 0 or bool(self._board.ranges)
        return began

    def timed_out(self, una: int, nxt: int) -> None:
        """The retransmission timer has expired: mark all outstanding bytes as lost."""
        self._board.clear()
        self._duplicates = 0
        self.active = self.by_timeout = self.busy = True
        self._point = self._lost_below = nxt
        self._next = una

    def next_hole(self, una: int) -> tuple[int, int] | None:
        """Return the first lost range that has not been sent again; None if there is none."""
        start = max(self._next, una)
        if not self.active or start >= self._lost_below:
            return None
        return self._board.first_hole(start, self._lost_below)

    def sent_again(self, end: int) -> None:
        """Note that every lost byte before ``end`` has been sent again."""
        self._next = end

    def pipe(self, una: int, nxt: int) -> int:
        """Return an estimate of the bytes in the network (RFC 6675, ``SetPipe``)."""
        board = self._board
        pipe = nxt - una - board.total
        if self.active:
            start = max(self._next, una)
            if start < self._lost_below:
                pipe -= self._lost_below - start - board.covered(start, self._lost_below)
        if not self._sack:
            pipe -= self._duplicates * self._mss
        return max(pipe, 0)

    def _take_blocks(self, blocks: tuple[tuple[int, int], ...], una: int, nxt: int) -> bool:
        news = False
        una_on_wire = una & SEQUENCE_MASK
        for left, right in blocks:
            start = una + seq_diff(left, una_on_wire)
            end = una + seq_diff(right, una_on_wire)
            if una <= start < end <= nxt:  # otherwise a duplicate (RFC 2883), or false
                news |= self._board.add(start, end)
        return news

    def _shows_loss(self, una: int) -> bool:
        if self._sack:
            return self._duplicates >= DUPLICATES or self._board.lost_below(self._mss) > una
        # Duplicates at the end of a repair come from segments that were sent twice (RFC 6582, 3.2).
        return self._duplicates >= DUPLICATES and una > self._point

    def _begin(self, una: int, nxt: int) -> None:
        self.active = True
        self.by_timeout = False
        self._point = nxt
        self._next = una
        self._lost_below = max(self._end_of_loss(una, nxt), self._board.lost_below(self._mss))

    def _end_of_loss(self, una: int, nxt: int) -> int:
        """Return where a loss that begins at ``una`` ends, as far as this is known."""
        hole = self._board.first_hole(una, min(una + self.burst, nxt))
        return hole[1] if hole else una

    def _repair_advanced(self, una: int, nxt: int) -> None:
        if una >= self._point:
            self.active = self.by_timeout = False
            return
        if not self.by_timeout and (self._next <= una or not self._sack):
            # A partial acknowledgement: the data after it was lost as well (RFC 6582, 3.2, step 3).
            self._next = una
            self._lost_below = max(self._lost_below, self._end_of_loss(una, nxt))


NO_LOSS: Final = LossRecovery(0, 0, sack=False)
"""Shared by all connections that have lost nothing yet. Its methods are never called."""
