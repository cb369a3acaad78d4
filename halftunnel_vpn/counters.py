"""Plain integers that the data path increments; nothing else happens there.

A collector in ``observe`` turns them into metrics at each request.
"""

from __future__ import annotations

from collections import defaultdict


class Counters:
    """Counts of one component, by label.

    ``dropped`` maps a reason (``ip-bad-checksum``) to how often something was dropped for it;
    ``counted`` maps the name of an event (``handshakes-accepted``) or of a quantity (``bytes-sent``) to its
    running total.
    """

    __slots__ = ("counted", "dropped")

    def __init__(self) -> None:
        self.dropped: defaultdict[str, int] = defaultdict(int)
        self.counted: defaultdict[str, int] = defaultdict(int)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count ``count`` drops for ``reason``."""
        self.dropped[reason] += count

    def count(self, name: str, count: int = 1) -> None:
        """Add ``count`` to the running total ``name``."""
        self.counted[name] += count
