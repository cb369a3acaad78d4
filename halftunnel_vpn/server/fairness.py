"""The exit's processor, shared between clients: a client that causes more work than data is slowed down.

A record costs time in proportion to its bytes when it carries data, and a hundred times as much when it is
full of streams to open, of pings or of nonsense. What goes beyond the price of data is charged to the client.
Once it has used up its allowance while others are served as well, its legs are not read until it has it back.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

SHARE = 0.1
"""Seconds of such work that a client gets in each second in which others are served."""

BURST = 0.1
"""Seconds of such work that a client may use up at once."""

RECORD_PRICE = 30e-6
"""Seconds that a record may take, whatever is in it."""

BYTE_PRICE = 20e-9
"""Seconds that each byte of a record may take: four times what moving it takes."""

OPENING_PRICE = 150e-6
"""Seconds charged for a stream that is opened: most of its work comes later, when its socket connects."""

ACTIVE_WITHIN = 0.25
"""Seconds for which a client counts as being served after a record of its own."""


class Fairness:
    """Tracks which clients are being served; ``share_of`` returns what all sessions of a client share."""

    def __init__(self) -> None:
        self._shares: WeakValueDictionary[str, CpuShare] = WeakValueDictionary()
        # Shares in debt, at most one for each client: a debt outlives the client's last session.
        self._in_debt: set[CpuShare] = set()
        self._latest: CpuShare | None = None
        self._latest_at = self._another_at = float("-inf")

    def share_of(self, client: str) -> CpuShare:
        """The share of ``client``; forgotten with its last session, unless it is in debt."""
        share = self._shares.get(client)
        if share is None:
            share = self._shares[client] = CpuShare(self)
        return share

    def set_debt(self, share: CpuShare, *, owes: bool) -> None:
        """Keep ``share`` while it owes something."""
        if owes:
            self._in_debt.add(share)
        else:
            self._in_debt.discard(share)

    def note(self, share: CpuShare, now: float) -> bool:
        """A record of ``share`` was served; return whether another client is being served, too."""
        if share is not self._latest:
            self._another_at = self._latest_at
            self._latest = share
        self._latest_at = now
        return now - self._another_at < ACTIVE_WITHIN


class CpuShare:
    """What one client may still make the exit do, in seconds of its processor's time."""

    __slots__ = ("__weakref__", "_fairness", "_left", "_updated")

    def __init__(self, fairness: Fairness) -> None:
        self._fairness = fairness
        self._left = BURST
        self._updated = 0.0

    def opening(self) -> None:
        """A stream is being opened for the client."""
        self._left -= OPENING_PRICE

    def served(self, length: int, seconds: float, now: float) -> float:
        """A record of ``length`` bytes took ``seconds``; returns those for which its leg should rest."""
        others = self._fairness.note(self, now)
        self._left = min(BURST, self._left + (now - self._updated) * SHARE)
        self._updated = now
        extra = seconds - RECORD_PRICE - length * BYTE_PRICE
        if extra > 0:
            self._left -= extra
        if not others and self._left <= 0:
            self._left = BURST  # no other client waits: no work is too much
        self._fairness.set_debt(self, owes=self._left <= 0)
        return 0.0 if self._left > 0 else -self._left / SHARE
