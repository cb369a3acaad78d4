"""Single parts of a session, and legs that lead nowhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.wire import Buffer, Packet, iter_train
from halftunnel_vpn.session.legs import NO_MOVEMENT, LegIdentity, Movement, SessionLeg
from halftunnel_vpn.session.send_side import SendSide
from halftunnel_vpn.session.train import Train

SESSION_ID = bytes(range(16))


class Road:
    """A leg's port that keeps what is sent on it."""

    def __init__(self) -> None:
        self.writable = True
        self.trains: list[bytes] = []
        self.closed: str | None = None

    def send_train(self, parts: Sequence[Buffer]) -> int:
        self.trains.append(b"".join(parts))
        return len(self.trains[-1])

    def set_pace(self, pace: float) -> None: ...

    def movement(self) -> Movement:
        return NO_MOVEMENT

    def close(self, reason: str) -> None:
        self.closed = reason


@pytest.fixture
def make_leg() -> Callable[..., SessionLeg]:
    """Makes upstream legs, numbered from 0."""
    numbers = iter(range(1000))

    def make(**options: object) -> SessionLeg:
        return SessionLeg(Road(), LegIdentity(Direction.UPSTREAM, next(numbers), **options), 0.0)

    return make


@pytest.fixture
def leg(make_leg: Callable[..., SessionLeg]) -> SessionLeg:
    return make_leg()


@pytest.fixture
def other_leg(make_leg: Callable[..., SessionLeg]) -> SessionLeg:
    return make_leg()


@pytest.fixture
def packets() -> Callable[[Train], list[Packet]]:
    """The packets in a train, as a receiver reads them."""
    return lambda train: iter_train(b"".join(train.parts), SESSION_ID) if train.parts else []


@pytest.fixture
def send_side() -> SendSide:
    """The sending half of a stream with plenty of credit."""
    return SendSide(SESSION_ID, 1, 1 << 40)


@pytest.fixture
def fill(send_side: SendSide, packets: Callable[[Train], list[Packet]]) -> Callable[..., list[Packet]]:
    """Fill one train from ``send_side`` and read it."""

    def do(
        leg: SessionLeg, *, limit: int = 1 << 20, acknowledgement: int = 0, now: float = 0.0
    ) -> list[Packet]:
        train = Train()
        added = send_side.fill(train, leg, acknowledgement, limit, now)
        assert added == sum(map(len, train.parts)), "what is told is what was added"
        return packets(train)

    return do
