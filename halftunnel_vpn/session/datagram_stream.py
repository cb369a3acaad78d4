"""A datagram stream: unreliable runs between a reliable OPEN and a reliable RESET."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.protocol.datagram import shortest_part, split_run
from halftunnel_vpn.protocol.interfaces import Buffer, DatagramHandler
from halftunnel_vpn.protocol.records import MAX_TRAIN_PAYLOAD
from halftunnel_vpn.protocol.stream_messages import (
    OpenReply,
    OpenRequest,
    ResetCode,
    StreamKind,
    encode_reset,
)
from halftunnel_vpn.protocol.wire import HEADER_LENGTH, PacketType, encode_header
from halftunnel_vpn.session.context import SessionContext
from halftunnel_vpn.session.legs import SessionLeg
from halftunnel_vpn.session.memory_budget import KEEP_TO_SEND, STREAM_COST
from halftunnel_vpn.session.send_side import SERIAL_MASK, SendSide
from halftunnel_vpn.session.stream import Stream
from halftunnel_vpn.session.train import Train

QUEUE_RUNS: Final = 256
"""Runs that wait for a leg, per stream; the oldest is dropped for the newest."""

QUEUE_BYTES: Final = 512 * 1024
"""Bytes of runs that wait for a leg, per stream."""

ENOUGH_BYTES: Final = 128 * 1024
ENOUGH_RUNS: Final = QUEUE_RUNS // 2
"""What keeps a leg busy until more can be queued. Callers that can wait should not add more."""

HEAVY_BYTES: Final = 64 * 1024
"""Bytes within HEAVY_TIME from which a stream does not use a leg that is reserved for what is urgent,"""

HEAVY_TIME: Final = 0.1
"""seconds: 5 Mbit/s, more than a video call takes."""

MAX_RUN: Final = MAX_TRAIN_PAYLOAD
"""Bytes of the longest run, header and data."""


class DatagramStream(Stream):
    """One unreliable stream of a session; implements DatagramPort. Only the session makes one."""

    __slots__ = (
        "_is_heavy",
        "_recent_bytes",
        "_recent_since",
        "_runs",
        "_runs_bytes",
        "_sequence",
        # What the streams of the session share.
        "context",
        # Who uses the stream at this end.
        "handler",
        # Called once when :attr:`has_enough` is no longer true.
        "has_drained",
        # Whether the exit has a socket for the stream.
        "is_accepted",
    )

    handler: DatagramHandler

    def __init__(self, context: SessionContext, stream_id: int, kind: StreamKind) -> None:
        trace = None if context.trace is None else context.trace.stream(stream_id, kind)
        # The sending side is for OPEN and RESET.
        super().__init__(stream_id, kind, SendSide(context.session_id, stream_id, 0), trace)
        self.context = context
        self.is_accepted = False
        self.has_drained: Callable[[], None] | None = None
        self._runs: deque[tuple[int, tuple[Buffer, ...]]] = deque()
        self._runs_bytes = 0
        self._sequence = 1
        # Whether so much has left lately, and how much since when.
        self._is_heavy = False
        self._recent_bytes = 0
        self._recent_since = 0.0

    @property
    def cost(self) -> int:
        """Bytes of memory that the stream is counted with for being there."""
        return STREAM_COST

    @property
    def is_urgent(self) -> bool:
        """Datagrams always go before bulk transfers."""
        return True

    # --- DatagramPort ----------------------------------------------------------------------------

    def send(self, *parts: Buffer) -> None:
        """Queue one run; a run that is too long, and the oldest of too many, are dropped and counted."""
        context = self.context
        if self.resetting:
            context.counters.drop("datagram-stream-closed")
            return
        length = sum(map(len, parts))
        if length > MAX_RUN:
            context.counters.drop("datagram-too-long")
            return
        memory = context.limits.memory
        if memory is not None and memory.spare(KEEP_TO_SEND) < length:
            context.counters.drop("datagram-memory-full")
            return
        runs = self._runs
        runs.append((length, parts))
        self._runs_bytes += length
        if memory is not None:
            memory.take(length)
        while len(runs) > QUEUE_RUNS or self._runs_bytes > QUEUE_BYTES:
            self._held(-runs.popleft()[0])
            context.counters.drop("datagram-queue-full")
        if self.queue is None:
            context.scheduler.activate(self)
            context.wake()

    @property
    def has_enough(self) -> bool:
        """Whether so much waits that the user should stop reading."""
        return self._runs_bytes >= ENOUGH_BYTES or len(self._runs) >= ENOUGH_RUNS

    def tell_when_drained(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when :attr:`has_enough` is no longer true."""
        self.has_drained = callback

    def close(self) -> None:
        """Close the stream at both ends."""
        self.reset(ResetCode.NORMAL)

    # --- the exit's answers, the client's request ------------------------------------------------

    def reset(self, code: ResetCode) -> None:
        """Drop what waits and report ``code`` to the peer; do nothing when the stream is over."""
        if self.resetting or not self.is_registered:
            return
        if self.trace is not None and not self.is_accepted:
            self.trace.refused(code)
        self.resetting = True
        self.release()
        self._control(PacketType.RESET, encode_reset(code))

    def accept(self, address: bytes = b"", port: int = 0) -> None:
        """Report to the client that the socket is bound to ``address`` and ``port`` (exit only)."""
        if self.trace is not None:
            self.trace.opened()
        self.is_accepted = True
        self._control(PacketType.OPEN, OpenReply(0, address, port).encode())

    def request(self, request: OpenRequest) -> None:
        """Ask the exit for the stream (client only)."""
        self._control(PacketType.OPEN, request.encode())

    # --- what the session calls ------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do for the stream at this end."""
        return self.resetting and self.sending.finished

    @property
    def has_something_to_send(self) -> bool:
        """Whether a train would get a packet of this stream now."""
        return bool(self._runs) or self.sending.has_something_to_send

    @property
    def needs(self) -> int:
        """Room in bytes without which :meth:`fill` adds nothing; 0 when it adds nothing anyway."""
        sending = self.sending.needs
        if sending or not self._runs:
            return sending
        length, parts = self._runs[0]
        return HEADER_LENGTH + min(length, shortest_part(parts))

    def must_wait(self, leg: SessionLeg) -> bool:
        """Whether nothing may leave on ``leg`` now: OPEN is on another, or enough datagrams are under way."""
        sending = self.sending
        if sending.waits_for_other_leg(leg) or (leg.is_reserved and self._is_heavy):
            return True
        return leg.under_way.is_full_of_datagrams and not sending.has_something_to_send

    def take_alone(self, leg: SessionLeg, now: float) -> list[Buffer]:
        """Take the run that waits, as the parts of a train of its own on ``leg``.

        Return nothing unless that is all that waits, and it may leave now.
        """
        runs, sending, under_way = self._runs, self.sending, leg.under_way
        if (
            len(runs) != 1
            or sending.opening_leg is not None
            or sending.control
            or sending.resend
            or under_way.datagram_bytes >= under_way.limit
            or self.has_drained is not None
        ):
            return []
        length, parts = runs.popleft()
        self._held(-length)
        leg.owes_proof = True  # nothing acknowledges a run
        under_way.datagram_bytes += length
        sequence = self._sequence
        self._sequence = (sequence + 1) & SERIAL_MASK
        self._weigh(length + HEADER_LENGTH, now)
        session_id = self.context.session_id
        return [encode_header(PacketType.DATA, session_id, self.stream_id, sequence, 0, length), *parts]

    def fill(self, train: Train, leg: SessionLeg, limit: int, now: float) -> int:
        """Add packets to ``train``; return the bytes added."""
        if self.sending.waits_for_other_leg(leg) or (leg.is_reserved and self._is_heavy):
            return 0
        added = self.sending.fill(
            train, leg, 1 if self.context.is_client and self.is_accepted else 0, limit, now
        )
        if self.sending.has_something_to_send:
            return added
        runs = self._runs
        under_way = leg.under_way
        if runs:
            leg.owes_proof = True  # nothing acknowledges a run
        while runs and added < limit and not under_way.is_full_of_datagrams:
            length, parts = runs[0]
            if length + HEADER_LENGTH > train.room:
                halves = split_run(parts, train.room - HEADER_LENGTH) if train.is_cell else None
                if halves is None:
                    break
                parts, rest = halves
                left = length - len(parts[1])
                runs[0] = (left, rest)
                length = len(parts[0]) + len(parts[1])
                self._held(len(parts[0]) - length)
            else:
                runs.popleft()
                self._held(-length)
            sequence = self._sequence
            self._sequence = (sequence + 1) & SERIAL_MASK
            train.parts.append(
                encode_header(PacketType.DATA, self.context.session_id, self.stream_id, sequence, 0, length)
            )
            train.parts += parts
            train.room -= length + HEADER_LENGTH
            train.packets += 1
            train.datagram_bytes += length
            under_way.datagram_bytes += length
            added += length + HEADER_LENGTH
        self._weigh(added, now)
        if self.has_drained is not None and not self.has_enough:
            drained, self.has_drained = self.has_drained, None
            drained()
        return added

    def packet_arrived(self, type_: PacketType, sequence: int, payload: memoryview, now: float) -> None:
        """Take a DATA or OPEN packet."""
        if type_ is PacketType.DATA:
            if not self.resetting:
                self.handler.run_received(payload, now)
        elif type_ is PacketType.OPEN:
            if self.trace is not None and not self.is_accepted:
                self.trace.opened()
            self.is_accepted = True
            self.context.acknowledgements.stateless(self.stream_id, sequence + 1)

    def acknowledged(self, number: int, now: float) -> None:
        """Take an acknowledgement of OPEN or RESET; DATA is not acknowledged."""
        if number and self.sending.acknowledge(number) and self.has_something_to_send:
            self._activate()

    def credited(self, limit: int, now: float) -> None:
        """Ignore credit: datagrams have none."""

    def owe_acknowledgement(self) -> None:
        """Do nothing: the acknowledgement of OPEN is repeated when OPEN is."""

    def reset_received(self, code: ResetCode, now: float) -> None:
        """End the stream: the peer has closed it."""
        was_over = self.resetting
        self.resetting = True
        self.release()
        if was_over:
            return
        if self.context.is_client and not self.is_accepted:
            if self.trace is not None:
                self.trace.refused(code)
            self.handler.refused(code, now)
        else:
            self.handler.aborted(code, now)

    def break_off(self, code: ResetCode, now: float) -> None:
        """End a stream on which the peer broke the rules: report ``code`` to the peer and to the user."""
        was_over = self.resetting
        self.reset(code)
        if not was_over:
            self.handler.aborted(code, now)

    def release(self) -> None:
        """Drop everything that waits."""
        self.sending.drop_everything()
        self._runs.clear()
        self._held(-self._runs_bytes)

    def settle(self) -> None:
        """Release everything: the stream is over."""
        self.release()

    def _weigh(self, count: int, now: float) -> None:
        """Count what leaves, to see whether it is much."""
        if now - self._recent_since >= HEAVY_TIME:
            self._is_heavy = self._recent_bytes >= HEAVY_BYTES and now - self._recent_since < 2 * HEAVY_TIME
            self._recent_bytes, self._recent_since = 0, now
        self._recent_bytes += count
        if self._recent_bytes >= HEAVY_BYTES:
            self._is_heavy = True

    def _held(self, count: int) -> None:
        """Count ``count`` more bytes of waiting runs; negative for fewer."""
        self._runs_bytes += count
        if self.context.limits.memory is not None:
            self.context.limits.memory.take(count)

    def _control(self, type_: PacketType, payload: bytes) -> None:
        self.sending.control.append((type_, payload))
        self._activate()

    def _activate(self) -> None:
        if self.queue is None:
            self.context.scheduler.activate(self)
        self.context.wake()
