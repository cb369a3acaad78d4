"""Make before break: a leg that is replaced hands over without a gap and without sending anything twice."""

from __future__ import annotations

import pytest

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.leg_set import DRAIN_TIMEOUT, LEG_NOT_DRAINED, LEG_RETIRED

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM


@pytest.fixture
def rotating(make_pair):
    """A pair whose legs close as WebSockets do."""
    pair = make_pair()
    for leg in pair.legs:
        leg.on_close = pair.hang_up
    return pair


def replace(pair, road):
    """A new leg, then the old one retired, in that order; returns the client's ends, old and new."""
    old = pair.ends(pair.client, road)[-1]
    new, far = pair.add_leg(road)
    new.on_close = far.on_close = pair.hang_up
    pair.settle()
    pair.client.leg_set.retire(old.state, pair.now)
    return old, new


@pytest.mark.parametrize("road", Direction)
def test_a_leg_in_use_is_replaced_without_a_byte_sent_twice(rotating, road):
    pair = rotating
    client, exit = pair.open()
    sender, receiver = (client, exit) if road is UP else (exit, client)
    side = pair.client if road is UP else pair.exit
    expected = bytearray()
    carried = 0
    for round_ in range(20):
        old, _new = replace(pair, road)
        data = bytes([round_]) * 200_000
        sender.stream.send(data)
        expected += data
        side.pump(pair.now)
        end = old if road is UP else old.peer
        before = end.carried
        pair.settle()
        pair.advance(0.2)
        assert end.carried - before < 1000, "the old leg carries nothing new but keepalives"
        assert old not in pair.legs and old.peer not in pair.legs
        assert end.close_reason == LEG_RETIRED
        carried += end.carried
    carried += sum(leg.carried for leg in pair.ends(side, road))
    assert bytes(receiver.received) == bytes(expected)
    assert len(expected) < carried < len(expected) * 1.02
    assert not pair.client_counters.dropped and not pair.exit_counters.dropped


def test_credit_that_a_dead_leg_took_along_is_given_again(rotating):
    pair = rotating
    client, exit = pair.open()
    client.reads = False
    while room := exit.stream.room:
        exit.stream.send(bytes(room))
        pair.settle()
    old = pair.end(pair.client, UP)
    pair.swallow(old)  # the road is dead, and nobody knows
    client.read_all()
    pair.settle()
    assert exit.stream.room == 0, "all that it may send has arrived, and the credit for more has not"
    replace(pair, UP)
    pair.advance(1.0)
    assert old not in pair.legs and old.close_reason == LEG_RETIRED
    assert exit.stream.room > 0


@pytest.mark.parametrize("road", Direction)
def test_what_the_old_leg_carries_is_acknowledged_before_it_closes(rotating, road):
    pair = rotating
    client, exit = pair.open()
    sender, receiver = (client, exit) if road is UP else (exit, client)
    side = pair.client if road is UP else pair.exit
    sender.stream.send(b"on the old leg")
    side.pump(pair.now)
    old = pair.end(side, road)
    new, far = pair.add_leg(road)
    new.on_close = far.on_close = pair.hang_up
    waiting = list(old.road)
    old.road.clear()  # it is slow
    pair.client.leg_set.retire((old if road is UP else old.peer).state, pair.now)
    pair.settle()
    pair.advance(1.0)
    assert old in pair.legs and old.close_reason is None and old.state.outstanding == 1
    old.road.extend(waiting)
    pair.settle()
    pair.advance(0.2)
    assert bytes(receiver.received) == b"on the old leg"
    assert old.close_reason == LEG_RETIRED


def test_a_retired_leg_that_never_drains_is_closed_and_what_it_carried_goes_out_again(rotating):
    pair = rotating
    client, exit = pair.open()
    client.stream.send(b"stuck")
    pair.client.pump(pair.now)
    old = pair.end(pair.client, UP)
    old.road.clear()
    new, far = pair.add_leg(UP)
    new.on_close = far.on_close = pair.hang_up
    pair.client.leg_set.retire(old.state, pair.now, within=1.0)
    pair.settle()
    pair.advance(1.1)
    assert old.close_reason == LEG_NOT_DRAINED
    assert bytes(exit.received) == b"stuck"


def test_a_downstream_leg_that_the_exit_does_not_close_is_closed_by_the_client(rotating):
    pair = rotating
    old = pair.end(pair.client, DOWN)
    new, _ = pair.add_leg(DOWN)
    pair.settle()
    pair.client.leg_set.retire(old.state, pair.now)
    new.road.clear()  # the exit never receives it
    pair.advance(DRAIN_TIMEOUT - 1)
    assert old.close_reason is None
    pair.advance(1.1)
    assert old.close_reason == LEG_NOT_DRAINED


def test_streams_opened_on_a_leg_that_is_retired_go_on_at_once(rotating):
    pair = rotating
    user = pair.ask()
    user.stream.send(b"early")
    pair.client.pump(pair.now)  # the OPEN is under way on the old leg
    old, _ = replace(pair, UP)
    user.stream.send(b" and late")
    pair.settle()
    pair.advance(0.2)
    assert bytes(pair.exit_users[1].received) == b"early and late"
    assert old not in pair.legs


def test_a_new_leg_that_dies_while_the_old_one_drains_loses_nothing(rotating):
    pair = rotating
    client, exit = pair.open()
    client.stream.send(b"first ")
    pair.client.pump(pair.now)
    _, new = replace(pair, UP)
    client.stream.send(b"second")
    pair.client.pump(pair.now)
    pair.kill(new)
    pair.settle()
    pair.advance(0.2)
    pair.add_leg(UP)
    pair.settle()
    assert bytes(exit.received) == b"first second"


def test_the_exit_retires_no_leg_on_which_it_does_not_send(pair):
    down, far = pair.add_leg(DOWN)
    pair.kill(pair.end(pair.client, DOWN))
    leg = pair.end(pair.client, UP)
    assert leg.state.number == 0 and down.state.number == 1
    pair.client._keepalive.retire(leg.state, leg.state, 1.0, pair.now)
    pair.settle()
    pair.advance(1.0)
    assert not leg.peer.state.draining and leg.peer.close_reason is None
    assert not far.state.draining


def test_a_dead_leg_is_retired_by_word_on_the_new_one(rotating):
    pair = rotating
    client, exit = pair.open()
    exit.stream.send(b"lost with the old network")
    old = pair.end(pair.client, DOWN)
    pair.exit.pump(pair.now)
    pair.swallow(old)
    new, far = pair.add_leg(DOWN)
    new.on_close = far.on_close = pair.hang_up
    pair.client.leg_set.retire(old.state, pair.now, within=0.5)
    pair.settle()
    pair.advance(0.6)
    assert bytes(client.received) == b"lost with the old network"
    assert old not in pair.legs and old.peer not in pair.legs
