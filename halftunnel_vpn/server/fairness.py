"""Sharing the exit's processor between clients: a client that causes more work than data is slowed down.

A record with data costs time in proportion to its bytes. A record full of streams to open, of pings or of
nonsense costs a hundred times as much. The excess over the price of data is charged to the client. If it has
used up its allowance while other clients are active, its legs are not read until it has paid.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

SHARE = 0.1
"""Seconds of excess work per second that a client gets while others are active."""

BURST = 0.1
"""Seconds of excess work that a client may use at once."""

RECORD_PRICE = 30e-6
"""Seconds that a record may take, whatever its content."""

BYTE_PRICE = 20e-9
"""Seconds that each byte of a record may take: four times the cost of moving it."""

OPENING_PRICE = 150e-6
"""Seconds charged for opening a stream. Most of its work comes later, when its socket connects."""

ACTIVE_WITHIN = 0.25
"""Seconds for which a client counts as active after one of its records."""


class Fairness:
    """Tracks the active clients. ``share_of`` returns the share that all sessions of a client use."""

    def __init__(self) -> None:
        self._shares: WeakValueDictionary[str, CpuShare] = WeakValueDictionary()
        # Shares in debt, at most one per client. A debt outlives the client's last session.
        self._in_debt: set[CpuShare] = set()
        self._latest: CpuShare | None = None
        self._latest_at = self._another_at = float("-inf")

    def share_of(self, client: str) -> CpuShare:
        """Return the share of ``client``. It is discarded with its last session, unless it is in debt."""
        share = self._shares.get(client)
        if share is None:
            share = self._shares[client] = CpuShare(self)
        return share

    def set_debt(self, share: CpuShare, *, owes: bool) -> None:
        """Keep ``share`` while it is in debt."""
        if owes:
            self._in_debt.add(share)
        else:
            self._in_debt.discard(share)

    def note(self, share: CpuShare, now: float) -> bool:
        """Note that a record of ``share`` was served; return whether another client is active, too."""
        if share is not self._latest:
            self._another_at = self._latest_at
            self._latest = share
        self._latest_at = now
        return now - self._another_at < ACTIVE_WITHIN

    def has_others(self, share: CpuShare, now: float) -> bool:
        """Return whether another client than that of ``share`` is active."""
        at = self._another_at if share is self._latest else self._latest_at
        return now - at < ACTIVE_WITHIN


class CpuShare:
    """The work that one client may still cause, in seconds of the exit's processor."""

    __slots__ = ("__weakref__", "_fairness", "_is_in_debt", "_left", "_updated")

    def __init__(self, fairness: Fairness) -> None:
        self._fairness = fairness
        self._left = BURST
        self._updated = 0.0
        self._is_in_debt = False

    def opening(self) -> None:
        """Charge the opening of a stream."""
        self._left -= OPENING_PRICE

    def served(self, length: int, seconds: float, now: float, is_data: bool = True) -> float:
        """Charge a record of ``length`` bytes that took ``seconds``; return its leg's rest in seconds.

        One without data (padding) is charged, too, but does not make its client an active one.
        """
        others = self._fairness.note(self, now) if is_data else self._fairness.has_others(self, now)
        self._left = min(BURST, self._left + (now - self._updated) * SHARE)
        self._updated = now
        extra = seconds - RECORD_PRICE - length * BYTE_PRICE
        if extra > 0:
            self._left -= extra
        if not others and self._left <= 0:
            self._left = BURST  # no other client is waiting, so all work is free
        if (self._left <= 0) != self._is_in_debt:
            self._is_in_debt = self._left <= 0
            self._fairness.set_debt(self, owes=self._is_in_debt)
        return 0.0 if self._left > 0 else -self._left / SHARE
