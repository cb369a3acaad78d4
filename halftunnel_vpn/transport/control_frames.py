"""Frames of a leg other than whole records: control frames, fragments, invalid ones; websockets judges each.

That takes some ten microseconds a frame, and the shortest has two bytes: a peer that sends nothing else could
block the event loop for seconds. So there is a bound, above what proxies send.
"""

from __future__ import annotations

from typing import NamedTuple

from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Opcode
from websockets.server import ServerProtocol

from halftunnel_vpn.protocol.wire import Buffer

BURST = 512
"""Side frames that may come at once."""

BYTES_EACH = 512
"""Received bytes that allow one more: a proxy that splits records makes longer pieces."""

A_SECOND = 16.0
"""Side frames that each second allows besides: pings."""


class Verdict(NamedTuple):
    """What one frame has brought: a ``record`` that it completes, or the ``reason`` of the leg's end."""

    record: bytes | None = None
    reason: str | None = None
    is_goodbye: bool = False
    """Whether the peer has sent its Close frame."""


NOTHING = Verdict()
"""Neither; websockets may have an answer to send."""


class SideFrames:
    """Judges the side frames of one leg, and puts fragments together.

    Causes: ``side-frame-flood``, ``text-frame``, ``message-too-big``, ``websocket-protocol-error``,
    ``peer-closed-CODE``. What websockets answers waits in it.
    """

    __slots__ = ("_left", "_received", "_updated", "_websocket", "fragments")

    def __init__(self, websocket: ClientProtocol | ServerProtocol, now: float) -> None:
        self._websocket = websocket
        self._left = float(BURST)
        self._updated = now
        self._received = 0
        self.fragments: bytearray | None = None
        """The beginning of a record; None between records."""

    def take(self, frame: bytes, received: int, now: float) -> Verdict:
        """One frame, when ``received`` bytes of records had come in all, ``now`` by the clock of the leg."""
        websocket = self._websocket
        if self._is_one_too_many(len(frame), received, now):
            websocket.fail(CloseCode.POLICY_VIOLATION, "too many frames")
            return Verdict(reason="side-frame-flood")
        record: bytes | None = None
        websocket.receive_data(frame)
        for event in websocket.events_received():
            opcode = getattr(event, "opcode", None)
            if opcode is Opcode.TEXT:
                websocket.fail(CloseCode.UNSUPPORTED_DATA, "binary messages only")
                return Verdict(reason="text-frame")
            if opcode is Opcode.BINARY or opcode is Opcode.CONT:
                record = self._put_together(event.data, event.fin)  # type: ignore[union-attr]
        if websocket.parser_exc is not None:
            too_big = isinstance(websocket.parser_exc, PayloadTooBig)
            return Verdict(reason="message-too-big" if too_big else "websocket-protocol-error")
        if websocket.close_rcvd is not None:
            return Verdict(reason=f"peer-closed-{websocket.close_rcvd.code:d}", is_goodbye=True)
        return NOTHING if record is None else Verdict(record)

    def _is_one_too_many(self, length: int, received: int, now: float) -> bool:
        earned = (now - self._updated) * A_SECOND + (received - self._received + length) / BYTES_EACH
        self._updated, self._received = now, received
        self._left = min(float(BURST), self._left + earned) - 1
        return self._left < 0

    def _put_together(self, data: Buffer, is_last: bool) -> bytes | None:
        # websockets bounds the sum of the fragments by MAX_RECORD
        if self.fragments is None:
            self.fragments = bytearray()
        self.fragments += data
        if not is_last:
            return None
        record, self.fragments = bytes(self.fragments), None
        return record
