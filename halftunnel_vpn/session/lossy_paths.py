"""Which paths of a session have lost segments lately. Their legs come and go, and have no pace."""

from __future__ import annotations

from typing import Final

LOSSY_FOR: Final = 300.0
"""Seconds for which a path that has lost is left to TCP."""

MAX_PATHS: Final = 32
"""Remembered paths. The one that would expire first is discarded."""


class LossyPaths:
    """Until when the pace of each path is left to TCP, in seconds of the session's clock."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, path: str, until: float) -> None:
        """``path`` has lost."""
        self._until.pop(path, None)
        if len(self._until) >= MAX_PATHS:
            del self._until[min(self._until, key=self._until.__getitem__)]
        self._until[path] = until

    def until(self, path: str, now: float) -> float:
        """Return until when ``path`` is lossy; 0 if it is not."""
        until = self._until.get(path, 0.0)
        if until and until <= now:
            del self._until[path]
            until = 0.0
        return until
