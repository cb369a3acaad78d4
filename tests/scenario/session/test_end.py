"""The end of a session: goodbyes, and what is still on the road behind them."""

from __future__ import annotations

import pytest

from halftunnel_vpn.errors import SessionExpired
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind, encode_reset
from halftunnel_vpn.protocol.wire import PacketType, iter_train


@pytest.fixture
def goodbyes():
    """The codes of the goodbyes on the road from an end of a leg."""

    def read(leg):
        packets = [p for train in leg.road for p in iter_train(train, leg.owner.session_id)]
        return [p.payload[0] for p in packets if p.type is PacketType.RESET and p.stream_id == 0]

    return read


def test_a_goodbye_leaves_on_every_leg_of_both_directions(make_pair, goodbyes):
    pair = make_pair(2, 3)
    pair.exit.close(ResetCode.DENIED, pair.now)
    ends = [leg for leg in pair.legs if leg.owner is pair.exit]
    assert len(ends) == 5
    for leg in ends:
        assert goodbyes(leg) == [ResetCode.DENIED]
        assert leg.close_reason == "session-closed"


def test_streams_hear_why_and_opening_ones_are_refused(make_pair):
    pair = make_pair()
    client, exit = pair.open()
    datagrams, datagrams_exit = pair.open(StreamKind.UDP)
    pair.accepts = False
    opening = pair.ask()
    waiting = pair.ask(StreamKind.ICMP)
    pair.client.close(ResetCode.SHUTDOWN, pair.now)
    assert client.events[-1] == "aborted SHUTDOWN" and datagrams.events[-1] == "aborted SHUTDOWN"
    assert opening.events == ["refused SHUTDOWN"] and waiting.events == ["refused SHUTDOWN"]
    assert not pair.client.streams and not pair.client.legs
    assert exit.events == datagrams_exit.events == []


def test_a_session_closes_once(pair, goodbyes):
    client, _ = pair.open()
    pair.client.close(ResetCode.SHUTDOWN, pair.now)
    pair.client.close(ResetCode.DENIED, pair.now)
    pair.client.ended_by_peer(pair.now)
    assert client.events == ["opened", "aborted SHUTDOWN"]
    assert goodbyes(pair.end(pair.client, Direction.UPSTREAM)) == [ResetCode.SHUTDOWN]


def test_the_owner_hears_of_the_end_by_the_peer_although_a_user_fails(pair):
    client, _ = pair.open()
    other, _ = pair.open()
    ended = []
    pair.on_ended = ended.append

    def fail(code, now):
        raise ZeroDivisionError

    client.aborted = fail
    with pytest.raises(ZeroDivisionError):
        pair.client.ended_by_peer(pair.now)
    assert ended == [True] and other.events[-1] == "aborted SHUTDOWN"


def test_the_end_by_the_peer_is_not_answered(make_pair, goodbyes):
    pair = make_pair()
    ended = []
    pair.on_ended = lambda is_client: ended.append((is_client, pair.exit.is_closed))
    _, exit = pair.open()
    with pytest.raises(SessionExpired):
        pair.inject(pair.exit, pair.packet(PacketType.RESET, 0, 0, 0, encode_reset(ResetCode.SHUTDOWN)))
    pair.exit.ended_by_peer(pair.now)
    assert exit.events == ["aborted SHUTDOWN"]
    assert ended == [(False, True)], "told when it is over"
    assert goodbyes(pair.end(pair.exit, Direction.DOWNSTREAM)) == []


def test_what_still_arrives_opens_nothing_and_is_not_answered(pair):
    _, exit = pair.open()
    pair.exit.close(ResetCode.DENIED, pair.now)
    leg = pair.end(pair.exit, Direction.UPSTREAM)
    sent = pair.end(pair.exit, Direction.DOWNSTREAM).carried
    request = OpenRequest(StreamKind.TCP, b"\xc6\x33\x64\x02", 80, 5).encode()
    for train in (
        pair.packet(PacketType.OPEN, 2, 0, 0, request),
        pair.packet(PacketType.DATA, 1, 1, 1, b"late"),
        pair.packet(PacketType.RESET, 0, 0, 0, b"\x09"),
        b"no train at all",
    ):
        pair.exit.train_received(leg.state, memoryview(train), pair.now)
    pair.exit.pump(pair.now)
    assert len(pair.requests) == 1 and not exit.received
    assert pair.end(pair.exit, Direction.DOWNSTREAM).carried == sent


def test_a_closed_session_has_no_timers(pair):
    pair.open()
    for session in (pair.client, pair.exit):
        session.close(ResetCode.SHUTDOWN, pair.now, tell_peer=False)
    assert pair.wheel.next_deadline is None


def test_a_leg_that_is_lost_after_the_end_is_no_event(pair):
    leg = pair.end(pair.client, Direction.UPSTREAM)
    pair.client.close(ResetCode.SHUTDOWN, pair.now)
    pair.client.leg_lost(leg.state, pair.now)
    assert pair.wheel.next_deadline is not None, "the exit's own"


def test_nothing_can_be_opened_any_more(pair):
    pair.client.close(ResetCode.SHUTDOWN, pair.now)
    for kind in (StreamKind.TCP, StreamKind.UDP):
        with pytest.raises(SessionExpired):
            pair.ask(kind)


def test_users_that_act_while_they_hear_of_the_end_do_no_harm(pair):
    client, exit = pair.open()
    other, _ = pair.open()

    def act(code, now):
        client.events.append("aborted")
        client.stream.reset(ResetCode.NORMAL)
        other.stream.reset(ResetCode.NORMAL)
        other.stream.finish()
        client.stream.consumed(1000)

    client.aborted = act
    pair.client.close(ResetCode.SHUTDOWN, pair.now)
    assert client.events == ["opened", "aborted"] and other.events == ["opened", "aborted SHUTDOWN"]
    assert not pair.client.streams
    assert exit.events == []


def test_a_user_that_raises_at_the_end_keeps_nobody_else_from_ending(pair):
    users = [pair.open()[1] for _ in range(3)]

    def broken(code, now):
        raise RuntimeError("broken")

    users[0].aborted = broken
    with pytest.raises(RuntimeError, match="broken"):
        pair.exit.close(ResetCode.SHUTDOWN, pair.now)
    assert [user.events[-1] for user in users[1:]] == ["aborted SHUTDOWN"] * 2
    assert not pair.exit.legs and not pair.exit.streams
