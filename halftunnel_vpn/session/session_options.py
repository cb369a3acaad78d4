"""What the owner of a session gives it, and how the session sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.trace_ports import SessionTrace
from halftunnel_vpn.session.intervals import IntervalTable
from halftunnel_vpn.session.legs import LegPolicy
from halftunnel_vpn.session.shaping_plan import ShapingPlan
from halftunnel_vpn.timers import Wheel


class SessionOwner(NamedTuple):
    """Gives a session its timers, randomness and counters, and is called about its life."""

    wheel: Wheel
    # Returns as many random bytes as it is called with.
    random: Callable[[int], bytes]
    counters: Counters
    # Called when Session.pump has something to do; the owner calls that soon, once for many calls.
    wake: Callable[[], None]
    # Called when the peer has ended the session.
    ended: Callable[[], None] = lambda: None
    # Is called about the streams; None: nothing is traced.
    trace: SessionTrace | None = None


class SendingOptions(NamedTuple):
    """How a session sends; the defaults are the exit's."""

    # Chooses the leg for each train; None is RoundRobin.
    policy: LegPolicy | None = None
    # The keepalive intervals of each domain; None is a table that only this session uses.
    intervals: IntervalTable | None = None
    # Bytes that a byte stream may send before the peer has granted any.
    initial_credit: int = 0
    # None: what waits leaves at once.
    shaping: ShapingPlan | None = None
    # Seconds between two records of the peer's, in which receipts ride; 0: they leave when they are due.
    receipt_interval: float = 0.0
    # Whether the client opens a leg for what is urgent when it is asked (exit).
    asks_for_legs: bool = False
