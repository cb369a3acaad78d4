"""What the parts of one session share."""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.acknowledgements import Acknowledgements
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.receive_side import WindowPool
from halftunnel_vpn.session.scheduler import Scheduler
from halftunnel_vpn.session.session_options import SessionOwner

INITIAL_ROUND_TRIP: Final = 0.1
"""Seconds that a session's round trip counts as until it has been measured."""


class SessionContext:
    """Identity, bounds and shared state of one session; its streams and legs keep a reference to it."""

    __slots__ = (
        # What the session owes the peer.
        "acknowledgements",
        "counters",
        "is_client",
        "is_closed",
        "limits",
        # Seconds of both directions together, as keepalives measure them.
        "round_trip",
        # Which stream sends next.
        "scheduler",
        # The direction that this end sends in.
        "sends",
        # The session's UUID, 16 bytes.
        "session_id",
        # Makes the traces of streams; None: nothing is traced.
        "trace",
        # Called when the session has something to send.
        "wake",
        # The credit that all streams share.
        "window_pool",
    )

    def __init__(
        self,
        session_id: bytes,
        owner: SessionOwner,
        *,
        is_client: bool,
        limits: SessionLimits,
        acknowledgements: Acknowledgements,
        scheduler: Scheduler,
    ) -> None:
        self.session_id = session_id
        self.trace = owner.trace
        self.is_client = is_client
        self.sends = Direction.UPSTREAM if is_client else Direction.DOWNSTREAM
        self.limits = limits
        self.counters = owner.counters
        self.wake = owner.wake
        self.acknowledgements = acknowledgements
        self.scheduler = scheduler
        self.window_pool = WindowPool(limits.window_pool, limits.stream_window, limits.memory)
        self.round_trip = INITIAL_ROUND_TRIP
        self.is_closed = False
