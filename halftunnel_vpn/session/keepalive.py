"""Health of the legs: padded keepalives from both ends, round trips, and the end of a leg that is dead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import Keepalive, KeepaliveKind
from halftunnel_vpn.protocol.wire import PacketType, encode_header
from halftunnel_vpn.session.context import SessionContext
from halftunnel_vpn.session.intervals import IntervalTable
from halftunnel_vpn.session.legs import Legs, SessionLeg
from halftunnel_vpn.session.liveness import Watch
from halftunnel_vpn.timers import Timer, Wheel

LEG_SILENT: Final = "leg-silent"
"""Reason for closing a leg that does not answer."""

MAX_PADDING: Final = 255
"""Bytes of random padding in a keepalive, at most."""

JITTER: Final = 0.25
"""Share of the interval by which a keepalive comes earlier, at most."""

EXIT_PATIENCE: Final = 1.5
"""Client intervals after which the exit pings by itself; normally the client's pings come first."""

MIN_INTERVAL, MAX_INTERVAL = 1.0, 300.0
"""Seconds: the range of client intervals that the exit follows."""

MIN_ROUND_TRIP: Final = 0.0005
"""Seconds that a session's round trip counts as at least."""

SMOOTHING: Final = 0.125
"""Weight of a new round-trip sample (RFC 6298, alpha)."""


class LegKeepalive:
    """Pings every leg, measures its round trip and closes it when it is dead.

    Proxies ignore WebSocket pings and cut a connection on which one direction is silent: these are ordinary
    binary messages, from both ends of both directions. The client sets the pace, by what ``intervals`` has
    learnt of the leg's domain; the exit follows.
    """

    __slots__ = (
        "_context",
        "_interval",
        "_intervals",
        "_legs",
        "_random",
        "_timers",
        "_watches",
        "_wheel",
        # Called with a leg, a packet and the time; returns True if the packet will leave later.
        "divert",
    )

    def __init__(
        self,
        context: SessionContext,
        legs: Legs,
        wheel: Wheel,
        random: Callable[[int], bytes],
        intervals: IntervalTable | None = None,
    ) -> None:
        self._context = context
        self._legs = legs
        self._wheel = wheel
        self._random = random
        self._interval = context.limits.keepalive
        self._intervals = intervals
        self._timers: dict[SessionLeg, Timer] = {}
        self._watches: dict[SessionLeg, Watch] = {}
        self.divert: Callable[[SessionLeg, bytes, float], bool] | None = None

    def watch(self, leg: SessionLeg, now: float) -> None:
        """Watch ``leg``: send the first ping at once, which measures the round trip."""
        self._timers[leg] = self._wheel.timer(lambda time: self._due(leg, time))
        self._watches[leg] = Watch(leg, self._wheel, self._ask, self._dead, self._is_last)
        self._due(leg, now)

    def forget(self, leg: SessionLeg) -> None:
        """Stop watching ``leg``."""
        timer = self._timers.pop(leg, None)
        if timer is not None:
            timer.cancel()
            self._watches.pop(leg).end()

    def used(self, leg: SessionLeg, now: float) -> None:
        """Check ``leg``, which carries something that needs an answer and is not checked yet."""
        watch = self._watches.get(leg)
        if watch is not None:  # otherwise it is gone, and what its peer had sent before still arrives
            watch.begin(now)

    def doubt(self, leg: SessionLeg, now: float) -> None:
        """Ping ``leg`` now: it may be dead."""
        if not leg.ping_sent:
            self._ask(leg, now)
        if not leg.is_watched:
            self.used(leg, now)

    def received(self, leg: SessionLeg, message: Keepalive, now: float) -> None:
        """Answer a PING of ``leg``, or take the round trip from a PONG."""
        if message.kind is KeepaliveKind.PING:
            self._send(leg, KeepaliveKind.PONG, message.id, message.sent_us, now)
            if not self._context.is_client and message.interval and leg in self._timers:
                leg.interval = min(max(message.interval, MIN_INTERVAL), MAX_INTERVAL)
                self._timers[leg].arm(now + leg.interval * EXIT_PATIENCE)
        elif message.kind is KeepaliveKind.PONG and message.id == leg.ping_id and leg.ping_sent:
            leg.last_round_trip = sample = now - leg.ping_sent
            leg.ping_sent = 0.0
            if leg.round_trip is None:
                leg.round_trip = sample
            else:
                leg.round_trip += SMOOTHING * (sample - leg.round_trip)
            self._measured()
            if self._intervals is not None and leg.silence:
                self._intervals.survived(leg.domain, leg.silence)

    def retire(self, leg: SessionLeg, via: SessionLeg, within: float, now: float) -> None:
        """Ask the peer, on the leg ``via``, to drain and close ``leg`` within ``within`` seconds."""
        self._send(via, KeepaliveKind.RETIRE, leg.number, int(within * 1e6), now)

    def send(self, leg: SessionLeg, kind: KeepaliveKind, number: int, now: float) -> None:
        """Send a message about leg ``number`` on ``leg``."""
        self._send(leg, kind, number, 0, now)

    def _measured(self) -> None:
        """Update the session's round trip: that of both directions together."""
        halves = [
            min((leg.round_trip for leg in self._legs.of(way) if leg.round_trip is not None), default=0.0)
            for way in Direction
        ]
        self._context.round_trip = max(sum(halves) / 2, MIN_ROUND_TRIP)

    def _due(self, leg: SessionLeg, now: float) -> None:
        if self._context.is_client:
            leg.interval = self._interval
            if self._intervals is not None:
                leg.interval = self._intervals.interval(leg.domain)
        interval = leg.interval or self._interval
        jitter = self._random(1)[0] / 255 * JITTER
        self._timers[leg].arm(now + interval * (1 - jitter))  # before the ping, which may lose the leg
        if not leg.ping_sent:
            silence = now - max(leg.last_received, leg.last_sent)
            self._ask(leg, now)
            leg.silence = silence
        if not leg.is_watched:
            self.used(leg, now)

    def _ask(self, leg: SessionLeg, now: float) -> None:
        leg.owes_proof = False  # the answer proves that everything before it has arrived
        leg.silence = 0.0
        leg.ping_id = (leg.ping_id + 1) & 0xFFFF_FFFF
        leg.ping_sent = now
        self._send(leg, KeepaliveKind.PING, leg.ping_id, int(now * 1e6), now)

    def _is_last(self, leg: SessionLeg) -> bool:
        """Whether an exit, which can open no other, would give up its last leg while data are under way."""
        under_way = leg.under_way
        is_loaded = under_way.bytes > 0 or under_way.datagram_bytes > 0
        return is_loaded and not self._context.is_client and self._legs.senders == [leg]

    def _dead(self, leg: SessionLeg, now: float) -> None:
        self._context.counters.count("legs-silent")
        leg.port.close(LEG_SILENT)

    def _send(self, leg: SessionLeg, kind: KeepaliveKind, id_: int, sent_us: int, now: float) -> None:
        padding = self._random(1 + self._random(1)[0] % MAX_PADDING)
        interval = leg.interval if kind is KeepaliveKind.PING else 0.0
        message = Keepalive(kind, id_, sent_us, leg.records_received, interval)
        leg.untold_bytes = 0  # it is a receipt as well
        self._context.acknowledgements.riding.pop(leg, None)
        payload = message.encode(padding)
        header = encode_header(PacketType.KEEPALIVE, self._context.session_id, 0, 0, 0, len(payload))
        if self.divert is None or not self.divert(leg, header + payload, now):
            leg.send_train([header, payload], now)
