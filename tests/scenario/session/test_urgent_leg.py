"""A path that loses gets a leg for what is urgent: which end asks, which leg it is, and what it carries."""

from __future__ import annotations

import pytest

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import Keepalive, KeepaliveKind, StreamKind
from halftunnel_vpn.protocol.wire import PacketType
from halftunnel_vpn.session.datagram_stream import HEAVY_BYTES, HEAVY_TIME
from halftunnel_vpn.session.urgent_leg import ASK_AGAIN

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM

BULK = bytes(60_000)
MEGABYTES = 2_000_000


@pytest.fixture
def wanted(pair):
    """What the client was asked for: directions and numbers of legs whose path loses."""
    asked = []
    pair.client.urgent_legs.wanted = lambda direction, number, now: asked.append((direction, number))
    return asked


def send_bulk(pair, sender, amount=MEGABYTES, meanwhile=lambda: None):
    """Send so much on one stream; ``meanwhile`` is called whenever it waits for the receiver."""
    while amount > 0:
        while sender.stream.room >= len(BULK) and amount > 0:
            sender.stream.send(BULK)
            amount -= len(BULK)
        meanwhile()
        pair.settle()


@pytest.mark.parametrize("way", [UP, DOWN])
def test_what_is_urgent_has_its_leg_to_itself(pair, way):
    (bulk_user, bulk_target), (ping_user, ping_target) = pair.open(), pair.open(StreamKind.ICMP)
    send_bulk(pair, bulk_user if way is UP else bulk_target, 200_000)  # no longer young
    pair.add_leg(way, is_urgent=True)
    pair.settle()
    sender, bulk, ping = (
        (pair.client, bulk_user, ping_user) if way is UP else (pair.exit, bulk_target, ping_target)
    )
    shared, urgent = pair.ends(sender, way)
    before = shared.carried, urgent.carried
    pings = []

    def ping_once():
        pings.append(f"ping {len(pings)}".encode())
        ping.stream.send(pings[-1])

    send_bulk(pair, bulk, meanwhile=ping_once)
    assert shared.carried - before[0] >= MEGABYTES
    assert len(pings) > 5 and 0 < urgent.carried - before[1] < 2000 * len(pings), "no bulk"
    arrived = ping_target if way is UP else ping_user
    assert [event for event in arrived.events if event.startswith("run")] == [
        f"run {ping!r}" for ping in pings
    ]
    assert len((bulk_target if way is UP else bulk_user).received) >= MEGABYTES


def test_the_exit_asks_now_and_then_and_the_client_says_which_leg(pair, wanted):
    loses = pair.end(pair.exit, DOWN).state
    pair.exit.leg_repeats(loses, pair.now)
    pair.exit.leg_repeats(loses, pair.now)
    pair.settle()
    assert wanted == [(DOWN, loses.number)]
    pair.advance(ASK_AGAIN)
    pair.exit.leg_repeats(loses, pair.now)
    pair.settle()
    assert wanted == [(DOWN, loses.number)] * 2, "it still loses"
    _, far = pair.add_leg(DOWN, is_urgent=True)
    assert not far.state.is_reserved
    pair.settle()
    assert far.state.is_reserved and not loses.is_reserved


def test_the_client_sees_its_own_losses(pair, wanted):
    loses = pair.end(pair.client, UP).state
    pair.client.leg_repeats(loses, pair.now)
    assert wanted == [(UP, loses.number)]


def test_a_client_that_does_not_know_is_not_asked(make_pair):
    pair = make_pair(asks_for_legs=False)
    pair.client.urgent_legs.wanted = lambda *asked: pytest.fail("it was asked")
    pair.exit.leg_repeats(pair.end(pair.exit, DOWN).state, pair.now)
    pair.settle()


def test_messages_of_the_other_side_are_ignored(pair, wanted):
    """A peer cannot make the exit open legs, nor choose the legs on which a client sends."""
    for sender, kind in ((pair.client, KeepaliveKind.WANTS_LEG), (pair.exit, KeepaliveKind.URGENT)):
        leg = pair.end(sender, sender.context.sends).state
        message = Keepalive(kind, leg.number, 0, leg.records_received).encode()
        pair.inject(
            pair.exit if sender.is_client else pair.client,
            pair.packet(PacketType.KEEPALIVE, 0, payload=message),
        )
    pair.settle()
    assert not wanted
    assert not any(end.state.is_reserved or end.state.is_urgent for end in pair.legs)


def test_the_urgent_leg_carries_everything_while_there_is_no_other(pair):
    user, target = pair.open()
    pair.add_leg(UP, is_urgent=True)
    pair.settle()
    shared, urgent = pair.ends(pair.client, UP)
    pair.kill(shared)
    assert not urgent.state.is_reserved
    send_bulk(pair, user)
    assert len(target.received) >= MEGABYTES
    replacement, _ = pair.add_leg(UP)
    assert urgent.state.is_reserved
    before = urgent.carried
    send_bulk(pair, user)
    assert urgent.carried - before < HEAVY_BYTES and replacement.carried >= MEGABYTES


def test_what_is_urgent_goes_on_the_other_legs_while_its_own_is_full_or_lost(pair):
    user, target = pair.open(StreamKind.ICMP)
    pair.add_leg(UP, is_urgent=True)
    pair.settle()
    _, urgent = pair.ends(pair.client, UP)
    urgent.writable = False
    user.stream.send(b"one")
    pair.settle()
    urgent.writable = True
    pair.kill(urgent)
    user.stream.send(b"two")
    pair.settle()
    assert target.events[-2:] == ["run b'one'", "run b'two'"]


def test_a_replacement_takes_over(pair):
    """When the urgent leg is rotated, the new one is there before the old one ends."""
    pair.add_leg(DOWN, is_urgent=True)
    _, new = pair.add_leg(DOWN, is_urgent=True)
    pair.settle()
    _, old, _ = pair.ends(pair.exit, DOWN)
    assert new.state.is_reserved and not old.state.is_reserved
    _, target = pair.open()
    send_bulk(pair, target, 200_000)
    before = old.carried
    send_bulk(pair, target)
    assert old.carried == before, "it carries nothing more"


def test_many_datagrams_are_no_urgent_ones(pair):
    user, _ = pair.open(StreamKind.UDP)
    pair.add_leg(UP, is_urgent=True)
    pair.settle()
    shared, urgent = pair.ends(pair.client, UP)

    def run(bytes_each, count=40):
        before = shared.carried, urgent.carried
        for _ in range(count):
            user.stream.send(bytes(bytes_each))
            pair.settle()
            pair.now += HEAVY_TIME / 10
        return shared.carried - before[0], urgent.carried - before[1]

    on_shared, on_urgent = run(1000)
    assert on_urgent > 40_000 > 4000 > on_shared, "a call"
    on_shared, on_urgent = run(HEAVY_BYTES // 4)
    assert on_shared > 2 * on_urgent, "a download over QUIC"
    pair.now += 2 * HEAVY_TIME
    run(1000, count=20)
    on_shared, on_urgent = run(1000)
    assert on_urgent > 40_000 > 4000 > on_shared, "a call again"
