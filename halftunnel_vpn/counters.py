"""Plain integers that the data path increments.

A collector in ``observe`` turns them into metrics at each request.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable


class Counters:
    """Counts of one component, by label.

    ``dropped`` maps a reason (``ip-bad-checksum``) to the number of drops for it. ``counted`` maps the name
    of an event (``handshakes-accepted``) or of a quantity (``bytes-sent``) to its total.
    """

    __slots__ = ("_refreshers", "counted", "dropped")

    def __init__(self) -> None:
        self._refreshers: list[Callable[[], None]] = []
        self.dropped: defaultdict[str, int] = defaultdict(int)
        self.counted: defaultdict[str, int] = defaultdict(int)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count ``count`` drops for ``reason``."""
        self.dropped[reason] += count

    def count(self, name: str, count: int = 1) -> None:
        """Add ``count`` to the total ``name``."""
        self.counted[name] += count

    def add_refresher(self, refresh: Callable[[], None]) -> None:
        """Call ``refresh`` before the counts are read. It must add what its owner has counted itself."""
        self._refreshers.append(refresh)

    def remove_refresher(self, refresh: Callable[[], None]) -> None:
        """Stop calling ``refresh``."""
        self._refreshers.remove(refresh)

    def refresh(self) -> None:
        """Update the counts. Call it before reading them."""
        for refresh in self._refreshers:
            refresh()
