"""The numbers of a session's streams: the client uses each once, and the exit checks that."""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.errors import FlowControlError, SessionExpired
from halftunnel_vpn.session.send_side import SERIAL_MASK

MAX_GAP: Final = 4096
"""Stream numbers that may be outstanding because their OPEN is in flight on another leg."""


class StreamNumbers:
    """``highest`` is the highest number so far, ``missing`` those below it that have not been seen (exit)."""

    __slots__ = ("highest", "missing")

    def __init__(self) -> None:
        self.highest = 0
        self.missing: set[int] = set()

    @property
    def next(self) -> int:
        """The client's next number. Raises SessionExpired when there is none."""
        if self.highest >= SERIAL_MASK:
            raise SessionExpired("the session has used up its stream numbers")
        return self.highest + 1

    def use(self, number: int) -> bool:
        """Note a number of the client; False for one seen before. Raises FlowControlError."""
        if number == self.highest + 1:
            self.highest = number
            return True
        if number > self.highest:
            skipped = range(self.highest + 1, number)
            if len(skipped) + len(self.missing) > MAX_GAP:
                raise FlowControlError("stream-number-gap")
            self.missing.update(skipped)
            self.highest = number
            return True
        if number in self.missing:
            self.missing.discard(number)
            return True
        return False

    def is_to_come(self, number: int) -> bool:
        """Return whether the OPEN of ``number`` may still come."""
        return number > self.highest or number in self.missing
