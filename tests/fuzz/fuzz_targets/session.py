"""A session, at either end, against a peer that says anything it likes.

An input is a script: trains of packets, well-formed or not, between the doings of the session's own user, of
its legs and of the clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from fuzz_targets.script import Script
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import PeerError, SessionError, SessionExpired
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.protocol.stream_messages import (
    Keepalive,
    KeepaliveKind,
    OpenRequest,
    ResetCode,
    StreamKind,
)
from halftunnel_vpn.protocol.wire import Buffer, PacketType, encode_header, iter_train
from halftunnel_vpn.session.byte_stream import ByteStream
from halftunnel_vpn.session.clock_parameters import downstream_clock, upstream_clock
from halftunnel_vpn.session.datagram_stream import DatagramStream
from halftunnel_vpn.session.legs import NO_MOVEMENT, LegIdentity, Movement, SessionLeg
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.padding_budget import PaddingBudget
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.session.session_options import SendingOptions, SessionOwner
from halftunnel_vpn.session.shaping_plan import ShapingPlan
from halftunnel_vpn.session.stream_ids import MAX_GAP
from halftunnel_vpn.timers import Wheel

SESSION_ID = bytes(range(16))
MAX_STREAMS = 16
MAX_STEPS = 400
WINDOW_POOL = 1024 * 1024
IN_TRAINS = (
    PacketType.DATA,
    PacketType.ACK,
    PacketType.FIN,
    PacketType.KEEPALIVE,
    PacketType.OPEN,
    PacketType.RESET,
    PacketType.PADDING,
)
CHUNK = bytes(40_000)


class _Leg:
    """A leg whose every train must be one that the peer could read."""

    def __init__(self, owner: Harness, direction: Direction, number: int) -> None:
        self.owner = owner
        self.writable = True
        self.state = SessionLeg(self, LegIdentity(direction, number), owner.now)

    def send_train(self, parts: Sequence[Buffer]) -> int:
        train = b"".join(parts)
        assert 0 < len(train) <= MAX_TRAIN
        iter_train(train, SESSION_ID)
        return len(train)

    def set_pace(self, pace: float) -> None: ...

    def movement(self) -> Movement:
        return NO_MOVEMENT

    def close(self, reason: str) -> None:
        self.owner.lose(self)


class _User:
    """The user of one stream, which takes what comes, and knows when its stream is over."""

    def __init__(self, stream: ByteStream | DatagramStream | None = None) -> None:
        self.stream = stream
        self.is_open = False
        self.is_over = False
        self.is_finished = False
        self.unread = 0

    def opened(self, now: float) -> None:
        assert not self.is_over and not self.is_open
        self.is_open = True

    def refused(self, code: ResetCode, now: float) -> None:
        assert not self.is_over
        self.is_over = True

    def data_received(self, data: memoryview, now: float) -> None:
        assert not self.is_over and not self.is_finished
        self.unread += len(data)

    def run_received(self, data: memoryview, now: float) -> None:
        assert not self.is_over

    def finished(self, now: float) -> None:
        assert not self.is_over and not self.is_finished
        self.is_finished = True

    def aborted(self, code: ResetCode, now: float) -> None:
        assert not self.is_over
        self.is_over = True

    def room_grew(self, now: float) -> None:
        assert not self.is_over


class Harness:
    """One session with its users, its legs and its clock. Implements Acceptor for an exit."""

    def __init__(self, script: Script, *, is_client: bool, is_shaped: bool = False) -> None:
        self.script = script
        self.now = 100.0
        self.wheel = Wheel()
        self.users: list[_User] = []
        self.legs: list[_Leg] = []
        self.leg_number = 0
        self.is_ended = False
        self.session = Session(
            SESSION_ID,
            SessionOwner(self.wheel, bytes, Counters(), wake=lambda: None),
            SessionLimits(max_streams=MAX_STREAMS, window_pool=WINDOW_POOL, stream_window=256 * 1024),
            self.now,
            is_client=is_client,
            acceptor=None if is_client else self,
            sending=SendingOptions(initial_credit=65536, shaping=_plan(is_client) if is_shaped else None),
        )
        for direction in Direction:
            self.join(direction)

    # --- Acceptor --------------------------------------------------------------------------------

    def stream_opened(self, stream: ByteStream, request: OpenRequest, now: float) -> _User:
        return self._served(_User(stream), stream, request)

    def datagrams_opened(self, stream: DatagramStream, request: OpenRequest, now: float) -> _User:
        return self._served(_User(stream), stream, request)

    def _served(self, user: _User, stream: ByteStream | DatagramStream, request: OpenRequest) -> _User:
        self.users.append(user)
        if request.port & 3 == 3:  # the port says whether it is refused, served at once or later
            user.is_over = True
            stream.reset(ResetCode.REFUSED)
        elif request.port & 3:
            user.is_open = True
            stream.accept()
        return user

    # --- legs ------------------------------------------------------------------------------------

    def join(self, direction: Direction) -> None:
        if len(self.legs) < 6 and not self.session.is_closed:
            leg = _Leg(self, direction, self.leg_number)
            self.leg_number += 1
            self.legs.append(leg)
            self.session.leg_joined(leg.state, self.now)

    def lose(self, leg: _Leg) -> None:
        if leg in self.legs:
            self.legs.remove(leg)
            self.session.leg_lost(leg.state, self.now)

    def leg(self, choice: int) -> _Leg:
        if not self.legs:
            for direction in Direction:
                self.join(direction)
        return self.legs[choice % len(self.legs)]

    # --- one step of the script ------------------------------------------------------------------

    def step(self) -> None:
        action = self.script.number()
        if action < 0x40:
            self._receive(self.leg(action), self.script.piece())
        elif action < 0x98:
            train = b"".join(self._packet() for _ in range(1 + (action & 7)))
            self._receive(self.leg(action >> 3), train)
        elif action < 0xD0:
            self._use(action)
        elif action < 0xD8:
            self._ask(action)
        elif action < 0xE0:
            self.lose(self.leg(action))
        elif action < 0xE8:
            self.join(tuple(Direction)[action & 1])
        elif action < 0xF0:
            leg = self.leg(action)
            leg.writable = not leg.writable
        else:
            self._wait((action & 15) ** 2 / 10)
        self.session.pump(self.now)
        self._check()

    def _packet(self) -> bytes:
        """A well-formed packet with numbers near those that matter."""
        script = self.script
        first = script.number()
        type_ = IN_TRAINS[(first & 7) % len(IN_TRAINS)]
        stream_id = script.near(0)
        stream = self.session.streams.get(stream_id)
        is_bytes = isinstance(stream, ByteStream)
        expected = stream.receiving.expected if is_bytes else 0
        sequence = script.near(expected & 0xFFFF_FFFF) if first & 0x08 else expected & 0xFFFF_FFFF
        acknowledgement = script.near(0) if first & 0x10 else 0
        payload = self._payload(type_, first)
        header = encode_header(type_, SESSION_ID, stream_id, sequence, acknowledgement, len(payload))
        return header + payload

    def _payload(self, type_: PacketType, first: int) -> bytes:
        script = self.script
        if first & 0x20:
            return script.take(script.number())
        if type_ is PacketType.DATA:
            return bytes(script.number(2) if first & 0x40 else script.number())
        if type_ is PacketType.ACK:
            return script.number(8 if first & 0x40 else 3).to_bytes(8, "big")
        if type_ is PacketType.KEEPALIVE:
            kind = KeepaliveKind.PING if first & 0x40 else KeepaliveKind.PONG
            return Keepalive(kind, script.number(), 0, 0).encode()
        if type_ is PacketType.PADDING:
            return bytes(script.number(2) if first & 0x40 else script.number())
        if type_ is PacketType.RESET:
            return script.take(1) or b"\0"
        if type_ is PacketType.OPEN:
            if self.session.is_client:
                return script.number(4).to_bytes(4, "big") + bytes(3)
            kind = tuple(StreamKind)[script.number() & 3]
            return OpenRequest(kind, b"\xc6\x33\x64\x02", 1 + script.number(), script.number(2)).encode()
        return b""

    def _receive(self, leg: _Leg, train: bytes) -> None:
        """As a leg does: a peer that breaks the protocol loses it."""
        try:
            self.session.train_received(leg.state, memoryview(train)[:MAX_TRAIN], self.now)
        except SessionExpired:
            self.session.ended_by_peer(self.now)
            self.is_ended = True
        except PeerError:
            self.lose(leg)

    def _use(self, action: int) -> None:
        """One user does what it may at any time."""
        if not self.users:
            return
        user = self.users[self.script.number() % len(self.users)]
        stream = user.stream
        assert stream is not None
        if isinstance(stream, DatagramStream):
            if user.is_over:
                return
            if action & 7 < 5:
                stream.send(b"\1\4", CHUNK[: self.script.number(2)])
            else:
                user.is_over = True
                stream.close()
            return
        choice = action & 7
        if choice == 0 and not user.is_open and not user.is_over and not self.session.is_client:
            user.is_open = True
            stream.accept(b"\xc6\x33\x64\x02", 80)
        elif choice <= 2 and not user.is_over:
            count, user.unread = user.unread, 0
            if count:
                stream.consumed(count, self.now)
        elif choice <= 4 and user.is_open and not user.is_over:
            room = stream.room
            if room > 0 and stream.state.name in ("ACTIVE", "HALF_CLOSED_REMOTE"):
                stream.send(CHUNK[: min(room, self.script.number(2))] or b"x", self.now)
        elif choice == 5 and not user.is_over:
            stream.finish()
        elif choice == 6 and not user.is_over:
            user.is_over = True
            stream.reset(ResetCode.NORMAL)

    def _ask(self, action: int) -> None:
        """The client opens a stream."""
        if not self.session.is_client:
            return
        user = _User()
        kind = tuple(StreamKind)[action & 3]
        is_bytes = kind in (StreamKind.TCP, StreamKind.DNS)
        request = OpenRequest(kind, b"\xc6\x33\x64\x02", 80, 0)
        opener = self.session.open_stream if is_bytes else self.session.open_datagrams
        try:
            user.stream = opener(request, user, self.now)  # type: ignore[arg-type]
        except SessionError:
            return
        user.is_open = not is_bytes
        self.users.append(user)

    def _wait(self, seconds: float) -> None:
        self.now += seconds
        self.wheel.run(self.now)

    # --- what always holds -----------------------------------------------------------------------

    def _check(self) -> None:
        session = self.session
        assert len(session._table.numbers.missing) <= MAX_GAP
        assert 0 <= session.context.window_pool.available <= WINDOW_POOL
        assert len([s for s in session.streams.values() if not s.resetting]) <= MAX_STREAMS

    def run(self) -> None:
        for _ in range(MAX_STEPS):
            if not self.script or self.is_ended:
                break
            self.step()
        self.session.close(ResetCode.SHUTDOWN, self.now)
        assert not self.session.streams and self.session.context.window_pool.available == WINDOW_POOL
        self.wheel.run(self.now + 1000.0)
        assert self.wheel.next_deadline is None


def _plan(is_client: bool) -> ShapingPlan:
    """Shaping whose bounds are reached soon."""
    seed = b"\x80\x80\x80"
    clock = (
        upstream_clock(seed, stops=True, bulk_after=0.1)
        if is_client
        else downstream_clock(seed, bulk_after=0.1)
    )
    return ShapingPlan(clock, PaddingBudget(budget=2_000_000))


def session_at_exit(data: bytes) -> None:
    """The exit's end."""
    Harness(Script(data), is_client=False).run()


def session_at_client(data: bytes) -> None:
    """The client's end."""
    Harness(Script(data), is_client=True).run()


def shaped_session_at_exit(data: bytes) -> None:
    """The exit's end, with its direction on a clock."""
    Harness(Script(data), is_client=False, is_shaped=True).run()


def shaped_session_at_client(data: bytes) -> None:
    """The client's end, with its direction on a clock."""
    Harness(Script(data), is_client=True, is_shaped=True).run()
