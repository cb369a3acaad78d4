"""Health of the legs: padded keepalives from both ends, round trips, and a deadline for silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.opening import Keepalive as KeepaliveMessage
from halftunnel_vpn.protocol.opening import KeepaliveKind
from halftunnel_vpn.protocol.wire import PacketType, encode_header
from halftunnel_vpn.session.legs import LegState
from halftunnel_vpn.timers import Timer, Wheel

if TYPE_CHECKING:
    from halftunnel_vpn.session.session import Session

SILENT_INTERVALS = 3
"""Keepalive intervals without a single record after which a leg counts as dead."""

LEG_SILENT = "leg-silent"
"""Cause of closing a leg that has said nothing for so long."""

MAX_PADDING = 255
"""Bytes of random padding in a keepalive, at the most."""

JITTER = 0.25
"""Share of the interval by which a keepalive comes earlier, at the most."""

MIN_ROUND_TRIP = 0.0005
"""Seconds that a session's round trip counts as at least."""

SMOOTHING = 0.125
"""Weight of a new round-trip sample (RFC 6298, alpha)."""


class Keepalive:
    """Pings every leg, measures its round trip and closes it when it has gone silent.

    Proxies ignore WebSocket pings and cut a connection on which one direction is silent: these are ordinary
    binary messages, from both ends of both directions.
    """

    __slots__ = ("_interval", "_random", "_session", "_timers", "_wheel")

    def __init__(
        self, session: Session, wheel: Wheel, random: Callable[[int], bytes], interval: float
    ) -> None:
        self._session = session
        self._wheel = wheel
        self._random = random
        self._interval = interval
        self._timers: dict[LegState, Timer] = {}

    def watch(self, leg: LegState, now: float) -> None:
        """Begin with ``leg``: the first ping leaves at once and measures the round trip."""
        self._timers[leg] = self._wheel.timer(lambda time: self._due(leg, time))
        self._due(leg, now)

    def forget(self, leg: LegState) -> None:
        """``leg`` is gone."""
        timer = self._timers.pop(leg, None)
        if timer is not None:
            timer.cancel()

    def received(self, leg: LegState, payload: memoryview, now: float) -> None:
        """A KEEPALIVE packet of ``leg``. Raises WireError when it is malformed."""
        message = KeepaliveMessage.decode(payload)
        if message.kind is KeepaliveKind.PING:
            self._send(leg, KeepaliveKind.PONG, message.id, message.sent_us, now)
        elif message.id == leg.ping_id and leg.ping_sent:
            sample = now - leg.ping_sent
            leg.ping_sent = 0.0
            if leg.round_trip is None:
                leg.round_trip = sample
            else:
                leg.round_trip += SMOOTHING * (sample - leg.round_trip)
            self._measured()

    def _measured(self) -> None:
        """The session's round trip is that of its two directions together."""
        session = self._session
        halves = [
            min((leg.round_trip for leg in session.legs_of(way) if leg.round_trip is not None), default=0.0)
            for way in Direction
        ]
        session.round_trip = max(sum(halves) / 2, MIN_ROUND_TRIP)

    def _due(self, leg: LegState, now: float) -> None:
        if now - leg.last_received > SILENT_INTERVALS * self._interval:
            self._session.counters.count("legs-silent")
            leg.port.close(LEG_SILENT)
            return
        leg.ping_id = (leg.ping_id + 1) & 0xFFFF_FFFF
        leg.ping_sent = now
        self._send(leg, KeepaliveKind.PING, leg.ping_id, int(now * 1e6), now)
        jitter = self._random(1)[0] / 255 * JITTER
        self._timers[leg].arm(now + self._interval * (1 - jitter))

    def _send(self, leg: LegState, kind: KeepaliveKind, id_: int, sent_us: int, now: float) -> None:
        padding = self._random(1 + self._random(1)[0] % MAX_PADDING)
        payload = KeepaliveMessage(kind, id_, sent_us, leg.records_received).encode(padding)
        header = encode_header(PacketType.KEEPALIVE, self._session.session_id, 0, 0, 0, len(payload))
        self._session.send_on(leg, [header, payload], now)
