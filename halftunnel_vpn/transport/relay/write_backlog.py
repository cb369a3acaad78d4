"""Bytes of a client that wait for their destination, in pieces with little overhead.

A payload keeps its whole record in memory, and has an object of some two hundred bytes. A client that sends
single bytes to a destination that does not read them would use a hundred times the memory that its window
counts. So short payloads are joined.
"""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.protocol.wire import Buffer

JOINED_BELOW: Final = 32 * 1024
"""Bytes of a payload from which it is kept as it is: half of its record, or more."""

MAX_JOINED: Final = 64 * 1024
"""Bytes of the longest piece made by joining."""

Backlog = list[Buffer]
"""Pieces in order; not a deque, which has 760 bytes when empty."""


def keep(backlog: Backlog, data: memoryview) -> None:
    """Put ``data`` behind what waits."""
    if len(data) >= JOINED_BELOW:
        backlog.append(data)
        return
    if backlog:
        last = backlog[-1]
        if type(last) is bytearray and len(last) + len(data) <= MAX_JOINED:
            last += data
            return
    backlog.append(bytearray(data))


def let_go(backlog: Backlog, count: int) -> None:
    """Drop the first ``count`` waiting bytes: they were sent."""
    while count:
        head = backlog[0]
        if len(head) <= count:
            count -= len(head)
            del backlog[0]
            continue
        if type(head) is bytearray:
            del head[:count]
        else:
            backlog[0] = head[count:]
        return
