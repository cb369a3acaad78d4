"""What comes on a leg before it has joined: kept, handed over in order, bounded."""

from __future__ import annotations

import asyncio

import pytest

from halftunnel_vpn.client.legs.early_messages import MAX_EARLY, EarlyMessages, LegClosed
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.keys import Direction, LegKeys
from halftunnel_vpn.protocol.records import Sealer
from halftunnel_vpn.protocol.stream_messages import Keepalive, KeepaliveKind
from halftunnel_vpn.protocol.wire import PacketType, encode_header
from halftunnel_vpn.session.legs import LegIdentity
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.session.session_options import SessionOwner
from halftunnel_vpn.timers import Wheel
from halftunnel_vpn.transport.leg_phase import LegPhase
from halftunnel_vpn.transport.sealed_leg import LegOwner, SealedLeg

KEYS = LegKeys(b"c" * 32, b"e" * 32)


@pytest.fixture
def arrivals():
    return EarlyMessages()


async def test_messages_come_out_in_order(arrivals, far_end):
    end = far_end(arrivals)
    for message in (b"one", b"two", b""):
        end.say(message)
    assert [await arrivals.next_message() for _ in range(3)] == [b"one", b"two", b""]


async def test_who_waits_is_woken(arrivals, far_end):
    end = far_end(arrivals)
    waiting = asyncio.ensure_future(arrivals.next_message())
    await asyncio.sleep(0)
    end.say(b"late")
    assert await waiting == b"late"


async def test_what_came_before_the_end_is_still_there(arrivals, far_end):
    end = far_end(arrivals)
    end.say(b"the last word")
    end.hang_up()
    assert await arrivals.next_message() == b"the last word"
    with pytest.raises(LegClosed) as raised:
        await arrivals.next_message()
    assert raised.value.reason == "leg-closed-connection-lost"
    assert "still on the exit's list" in str(raised.value)


async def test_the_end_wakes_both_kinds_of_waiting(arrivals, far_end):
    end = far_end(arrivals)
    message, closed = (
        asyncio.ensure_future(arrivals.next_message()),
        asyncio.ensure_future(arrivals.wait_closed()),
    )
    await asyncio.sleep(0)
    assert not message.done() and not closed.done()
    end.hang_up()
    await closed
    with pytest.raises(LegClosed):
        await message
    await arrivals.wait_closed()


async def test_too_many_early_messages_close_the_leg(arrivals, far_end):
    end = far_end(arrivals)
    for _ in range(MAX_EARLY):
        end.say(b"x")
    assert end.leg.state is LegPhase.OPEN
    end.say(b"one more")
    assert end.leg.state is not LegPhase.OPEN
    for _ in range(MAX_EARLY):
        assert await arrivals.next_message() == b"x"
    end.hang_up()
    with pytest.raises(LegClosed):
        await arrivals.next_message()


class Joined:
    """A session whose leg has just joined."""

    def __init__(self, leg):
        self.lost = []
        self.session = Session(
            bytes(16),
            SessionOwner(Wheel(), bytes, Counters(), wake=lambda: None),
            SessionLimits(),
            1.0,
            is_client=True,
        )
        owner = LegOwner(lambda: 1.0, self.session.counters, lambda *loss: self.lost.append(loss))
        self.sealed = SealedLeg(leg, self.session, KEYS, LegIdentity(Direction.DOWNSTREAM, 0), owner)
        self.session.leg_joined(self.sealed.state, 1.0)


def ping(sealer, number):
    payload = Keepalive(KeepaliveKind.PING, number, 0, 0).encode()
    return sealer.seal([encode_header(PacketType.KEEPALIVE, bytes(16), 0, 0, 0, len(payload)), payload])


async def test_what_came_early_is_handed_over_before_what_comes_later(arrivals, far_end):
    end = far_end(arrivals)
    sealer = Sealer(KEYS.exit_to_client)
    for number in range(3):
        end.say(ping(sealer, number))
    joined = Joined(end.leg)
    arrivals.hand_over(end.leg, joined.sealed)
    end.say(ping(sealer, 3))
    assert joined.sealed.state.records_received == 4
    assert not joined.lost and not joined.session.counters.dropped
    assert joined.sealed.state.records_sent == 5, "a ping of its own and four pongs"


async def test_a_leg_that_was_lost_meanwhile_is_told_at_once(arrivals, far_end):
    end = far_end(arrivals)
    end.hang_up()
    joined = Joined(end.leg)
    arrivals.hand_over(end.leg, joined.sealed)
    assert joined.lost == [(joined.sealed.state, "connection-lost")]
    assert not joined.session.legs
