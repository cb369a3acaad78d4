"""Two session cores joined by legs in memory, under one virtual clock."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence

import pytest
from lab.stream_at_now import StreamAtNow

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind
from halftunnel_vpn.protocol.wire import Buffer, PacketType, encode_header
from halftunnel_vpn.session.legs import NO_MOVEMENT, LegIdentity, LegPolicy, Movement, SessionLeg
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.session.session_options import SendingOptions, SessionOwner
from halftunnel_vpn.session.shaping_plan import ShapingPlan
from halftunnel_vpn.timers import Wheel

SESSION_ID = bytes(range(16))


class MemoryLeg:
    """One end of a leg: what is sent waits in ``road`` until the pair delivers it."""

    def __init__(self, owner: Session) -> None:
        self.owner = owner
        self.peer: MemoryLeg
        self.state: SessionLeg
        self.road: deque[bytes] = deque()
        self.writable = True
        self.alive = True
        self.carried = 0
        self.capacity = 4
        self.close_reason: str | None = None
        self.on_close: Callable[[MemoryLeg], None] = lambda leg: None

    def send_train(self, parts: Sequence[Buffer]) -> int:
        train = b"".join(parts)
        if self.alive:
            self.road.append(train)
            self.carried += len(train)
            self.writable = len(self.road) < self.capacity
        return len(train)

    def set_pace(self, pace: float) -> None: ...

    def movement(self) -> Movement:
        return NO_MOVEMENT

    def close(self, reason: str) -> None:
        self.close_reason = reason
        self.on_close(self)


class Recorder:
    """A stream's user that records its events and gives credit for what it reads."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received = bytearray()
        self.stream = None
        self.reads = True
        self.unread = 0
        self.on_room: Callable[[], None] = lambda: None

    def opened(self, now: float) -> None:
        self.events.append("opened")

    def refused(self, code: ResetCode, now: float) -> None:
        self.events.append(f"refused {code.name}")

    def data_received(self, data: memoryview, now: float) -> None:
        self.received += data
        if self.reads and self.stream is not None:
            self.stream.consumed(len(data))
        else:
            self.unread += len(data)

    def run_received(self, data: memoryview, now: float) -> None:
        self.events.append(f"run {bytes(data)!r}")

    def finished(self, now: float) -> None:
        self.events.append("finished")

    def aborted(self, code: ResetCode, now: float) -> None:
        self.events.append(f"aborted {code.name}")

    def room_grew(self, now: float) -> None:
        self.on_room()

    def read_all(self) -> None:
        self.reads = True
        if self.stream is not None:
            self.stream.consumed(self.unread)
        self.unread = 0


class Pair:
    """A client and an exit. ``accepts`` says whether the exit takes streams."""

    def __init__(
        self,
        *,
        seed: int = 1,
        limits: SessionLimits | None = None,
        client_limits: SessionLimits | None = None,
        exit_limits: SessionLimits | None = None,
        client_shaping: ShapingPlan | None = None,
        exit_shaping: ShapingPlan | None = None,
        client_policy: LegPolicy | None = None,
        asks_for_legs: bool = True,
    ) -> None:
        self.asks_for_legs = asks_for_legs
        self.client_policy = client_policy
        self.now = 100.0
        self.wheel = Wheel()
        self.random = random.Random(seed)
        self.exit_users: dict[int, Recorder] = {}
        self.requests: list[OpenRequest] = []
        self.accepts = True
        self.answer: ResetCode | None = None
        self.refused_ids: set[int] = set()
        self.on_ended: Callable[[bool], None] = lambda is_client: None
        self.client_counters = Counters()
        self.exit_counters = Counters()
        self.client = self._session(True, self.client_counters, client_limits or limits, client_shaping)
        self.exit = self._session(False, self.exit_counters, exit_limits or limits, exit_shaping)
        self.legs: list[MemoryLeg] = []
        self.numbers = dict.fromkeys(Direction, 0)

    def _session(
        self,
        is_client: bool,
        counters: Counters,
        limits: SessionLimits | None,
        shaping: ShapingPlan | None,
    ) -> Session:
        return Session(
            SESSION_ID,
            SessionOwner(
                self.wheel,
                self.random.randbytes,
                counters,
                wake=lambda: None,
                ended=lambda: self.on_ended(is_client),
            ),
            limits or SessionLimits(),
            self.now,
            is_client=is_client,
            acceptor=None if is_client else self,
            sending=SendingOptions(
                self.client_policy if is_client else None,
                shaping=shaping,
                asks_for_legs=self.asks_for_legs and not is_client,
            ),
        )

    # --- the exit's Acceptor ---------------------------------------------------------------------

    def stream_opened(self, stream, request, now):
        user = Recorder()
        user.stream = StreamAtNow(stream, lambda: self.now)
        self.exit_users[stream.stream_id] = user
        self.requests.append(request)
        if self.answer is not None:
            stream.reset(self.answer)
        elif stream.stream_id in self.refused_ids:
            stream.reset(ResetCode.REFUSED)
        elif self.accepts:
            stream.accept()
        return user

    def datagrams_opened(self, stream, request, now):
        return self.stream_opened(stream, request, now)

    # --- a peer that breaks the rules ------------------------------------------------------------

    @staticmethod
    def packet(
        type_: PacketType, stream_id: int, sequence: int = 0, acknowledgement: int = 0, payload: bytes = b""
    ) -> bytes:
        """One packet of this session."""
        header = encode_header(type_, SESSION_ID, stream_id, sequence, acknowledgement, len(payload))
        return header + payload

    def inject(self, receiver: Session, *packets: bytes) -> None:
        """Hand a train to ``receiver``, on the first leg that carries its peer's data."""
        direction = Direction.DOWNSTREAM if receiver.is_client else Direction.UPSTREAM
        end = self.end(receiver, direction)
        end.peer.state.records_sent += 1
        receiver.train_received(end.state, memoryview(b"".join(packets)), self.now)

    def end(self, owner: Session, direction: Direction) -> MemoryLeg:
        """The first leg of ``direction``, at the end of ``owner``."""
        return self.ends(owner, direction)[0]

    def ends(self, owner: Session, direction: Direction) -> list[MemoryLeg]:
        """Every leg of ``direction``, at the end of ``owner``."""
        return [leg for leg in self.legs if leg.owner is owner and leg.state.direction is direction]

    # --- driving ---------------------------------------------------------------------------------

    def add_leg(
        self, direction: Direction, weight: int = 1, *, is_urgent: bool = False
    ) -> tuple[MemoryLeg, MemoryLeg]:
        """Two ends of a new leg; only the client knows when it is urgent."""
        number = self.numbers[direction]
        self.numbers[direction] += 1
        ends = MemoryLeg(self.client), MemoryLeg(self.exit)
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        for end in ends:
            urgent = is_urgent and end.owner is self.client
            identity = LegIdentity(direction, number, weight=weight, is_urgent=urgent)
            end.state = SessionLeg(end, identity, self.now)
            self.legs.append(end)
        for end in ends:
            end.owner.leg_joined(end.state, self.now)
        return ends

    def kill(self, leg: MemoryLeg, *, lose: bool = True) -> None:
        """Both ends of a leg die; what is on the road is lost, or arrives before the end."""
        for end in (leg, leg.peer):
            end.alive = False
            if lose:
                end.road.clear()
        if not lose:
            self.deliver()
        for end in (leg, leg.peer):
            if end in self.legs:
                self.legs.remove(end)
                end.owner.leg_lost(end.state, self.now)

    def swallow(self, leg: MemoryLeg) -> None:
        """Drop everything in both directions from now on, without a report."""
        for end in (leg, leg.peer):
            end.alive = False
            end.road.clear()

    def hang_up(self, leg: MemoryLeg) -> None:
        """As a WebSocket closes: what was sent arrives, then both ends know; a dead road tells one end."""
        ends = (leg, leg.peer) if leg.alive else (leg,)
        if leg.alive:
            while leg.road:
                leg.peer.owner.train_received(leg.peer.state, memoryview(leg.road.popleft()), self.now)
        for end in ends:
            if end in self.legs:
                self.legs.remove(end)
                end.owner.leg_lost(end.state, self.now)

    def deliver(self, *, shuffle: bool = False) -> bool:
        """Bring over all that is on the roads, leg by leg in order; False if there was nothing."""
        moved = False
        while busy := [leg for leg in self.legs if leg.road]:
            leg = self.random.choice(busy) if shuffle else busy[0]
            leg.peer.owner.train_received(leg.peer.state, memoryview(leg.road.popleft()), self.now)
            leg.writable = len(leg.road) < leg.capacity
            moved = True
        return moved

    def settle(self, *, shuffle: bool = False) -> None:
        """Pump and deliver until nothing moves."""
        for _ in range(100_000):
            self.client.pump(self.now)
            self.exit.pump(self.now)
            if not self.deliver(shuffle=shuffle):
                return
        raise AssertionError("the sessions never come to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer, with everything delivered at once."""
        end = self.now + seconds
        while (deadline := self.wheel.next_deadline) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.wheel.run(self.now)
            self.settle()
        self.now = end
        self.wheel.run(self.now)
        self.settle()

    def ask(self, kind: StreamKind = StreamKind.TCP) -> Recorder:
        """A stream that the client has asked for; nothing has left yet. Returns its user."""
        user = Recorder()
        request = OpenRequest(kind, b"\xc6\x33\x64\x02", 80, 0)
        is_bytes = kind in (StreamKind.TCP, StreamKind.DNS)
        opener = self.client.open_stream if is_bytes else self.client.open_datagrams
        user.stream = StreamAtNow(opener(request, user, self.now), lambda: self.now)
        return user

    def open(self, kind: StreamKind = StreamKind.TCP) -> tuple[Recorder, Recorder]:
        """A stream that both ends use; returns the client's and the exit's user."""
        user = self.ask(kind)
        self.settle()
        return user, self.exit_users[user.stream.stream_id]


@pytest.fixture
def pair() -> Pair:
    """A pair with one leg in each direction."""
    made = Pair()
    made.add_leg(Direction.UPSTREAM)
    made.add_leg(Direction.DOWNSTREAM)
    made.settle()
    return made


@pytest.fixture
def make_pair() -> Callable[..., Pair]:
    """Pairs with any number of legs in each direction."""

    def make(upstream: int = 1, downstream: int = 1, **options: object) -> Pair:
        made = Pair(**options)
        for direction, count in ((Direction.UPSTREAM, upstream), (Direction.DOWNSTREAM, downstream)):
            for _ in range(count):
                made.add_leg(direction)
        made.settle()
        return made

    return make
