"""What can happen to the daemon's tunnel: the words of the table of transitions."""

from __future__ import annotations

from enum import Enum


class TunnelEvent(Enum):
    """A command, or something that the tunnel tells."""

    UP = "up"
    """Somebody wants a tunnel, or another one."""
    DOWN = "down"
    """Somebody wants none any more."""
    RETRY = "retry"
    """The time has come to try again."""
    ESTABLISHED = "established"
    """There is a session, and the host's traffic goes into the tunnel."""
    LOST = "lost"
    """A direction has no leg, or there is no session."""
    REGAINED = "regained"
    """Both directions have legs again."""
    FAILED = "failed"
    """The tunnel is over, and nothing forbids the host to go on without."""
    BLOCKED = "blocked"
    """The tunnel is over, and the kill switch forbids the host to go on without."""
    STOPPED = "stopped"
    """Everything is put back."""
