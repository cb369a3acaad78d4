"""The rows of the clients for open pages, as server-sent events: all at first, then those that change.

The rows are computed once for all pages, and not at all while no page is open.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from halftunnel_vpn.control.exit_routes import ClientRow

MAX_READERS: Final = 16
"""Pages that are open at a time; a further one is refused."""

MAX_UNREAD: Final = 16
"""Events that wait for one page; at this bound it is cut off, and connects again."""

UPDATE_INTERVAL: Final = 1.0
"""Seconds between two updates."""

SHARE_OF_TIME: Final = 200
"""Rows are computed during at most 1/N of the time: an exit with very many clients is updated less often."""

HEARTBEAT: Final = 10.0
"""Seconds without an event after which an empty comment is sent. It shows that both ends live."""

_COMMENT: Final = b":\n\n"


class FeedReader:
    """One open page. ``is_allowed`` is asked before each part; the feed ends when it is not any more."""

    def __init__(self, feed: LiveFeed, is_allowed: Callable[[], bool]) -> None:
        self._feed = feed
        self._is_allowed = is_allowed
        self._events: asyncio.Queue[bytes] = asyncio.Queue(MAX_UNREAD)
        self._is_cut_off = False

    def put(self, event: bytes) -> bool:
        """Hand over an event; return False, and end the feed, when too many wait."""
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            self._is_cut_off = True
        return not self._is_cut_off

    async def next_part(self) -> bytes:
        """Return the next event, or a heartbeat; ``b""`` at the end."""
        part = _COMMENT
        try:
            async with asyncio.timeout(HEARTBEAT):
                part = await self._events.get()
        except TimeoutError:
            pass
        return b"" if self._is_cut_off or not self._is_allowed() else part

    def close(self) -> None:
        """Leave the feed."""
        self._feed.leave(self)


class LiveFeed:
    """``rows`` returns all clients; ``dropped`` is called with a reason."""

    def __init__(
        self,
        rows: Callable[[], list[ClientRow]],
        clock: Callable[[], float],
        dropped: Callable[[str], None],
    ) -> None:
        self._rows = rows
        self._clock = clock
        self._dropped = dropped
        self._readers: set[FeedReader] = set()
        self._has_readers = asyncio.Event()
        # What the readers know, by name.
        self._last: dict[str, ClientRow] = {}

    def subscribe(self, is_allowed: Callable[[], bool]) -> FeedReader | None:
        """Return a new reader, which gets all rows at first; None at MAX_READERS."""
        if len(self._readers) >= MAX_READERS:
            self._dropped("too-many-readers")
            return None
        self.update()
        reader = FeedReader(self, is_allowed)
        reader.put(_event("clients", {"clients": list(self._last.values())}))
        self._readers.add(reader)
        self._has_readers.set()
        return reader

    def leave(self, reader: FeedReader) -> None:
        """Forget a reader."""
        self._readers.discard(reader)
        if not self._readers:
            self._has_readers.clear()

    async def run(self) -> None:
        """Update the readers again and again while there are any."""
        while True:
            await self._has_readers.wait()
            began = self._clock()
            self.update()
            took = self._clock() - began
            await asyncio.sleep(max(UPDATE_INTERVAL, took * SHARE_OF_TIME))

    def update(self) -> None:
        """Send the rows that have changed, and the names that are gone."""
        rows = {row["name"]: _steady(row) for row in self._rows()}
        before, self._last = self._last, rows
        changed = [row for name, row in rows.items() if before.get(name) != row]
        gone = [name for name in before if name not in rows]
        if not self._readers or not (changed or gone):
            return
        event = _event("changes", {"clients": changed, "gone": gone})
        for reader in list(self._readers):
            if not reader.put(event):
                self._dropped("slow-reader")
                self.leave(reader)


def _steady(row: ClientRow) -> ClientRow:
    """Return a row without what changes every second although nothing happens."""
    since = None if row["since"] is None else round(row["since"])
    seen = None if row["online"] or row["last_seen"] is None else round(row["last_seen"])
    return ClientRow(**{**row, "since": since, "last_seen": seen})


def _event(name: str, content: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(content)}\n\n".encode()
