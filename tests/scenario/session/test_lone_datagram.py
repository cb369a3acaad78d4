"""A datagram that nothing else waits with takes a shorter way to its leg, and leaves it in the same state."""

from __future__ import annotations

import sys

import pytest

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import StreamKind
from halftunnel_vpn.session.receipts import RECORD_COST, RIDE_BYTES

RUN = bytes(64)

MOST_CALLS = 24
"""Calls of Python functions from the send of a lone datagram to its leg. There were 41, and each takes
microseconds after a silence."""


@pytest.fixture
def users(pair):
    """The users of a stream of echo requests, at rest."""
    client, exit = pair.open(StreamKind.ICMP)
    pair.advance(1)
    return {"client": client, "exit": exit}


def received(user) -> list[str]:
    return [event for event in user.events if event.startswith("run")]


def leg_of(pair, sender: str):
    session = pair.client if sender == "client" else pair.exit
    return session, pair.end(session, Direction.UPSTREAM if sender == "client" else Direction.DOWNSTREAM)


@pytest.mark.parametrize("sender", ["client", "exit"])
def test_it_meets_few_functions(pair, users, sender):
    session, leg = leg_of(pair, sender)
    calls: list[str] = []

    def note(frame, event: str, argument: object) -> None:
        if event == "call":
            calls.append(frame.f_code.co_qualname)

    stream = users[sender].stream
    sys.setprofile(note)
    try:
        stream.send(RUN)
        session.pump(pair.now)
    finally:
        sys.setprofile(None)
    assert len(leg.road) == 1
    assert len(calls) <= MOST_CALLS, calls


@pytest.mark.parametrize("sender", ["client", "exit"])
@pytest.mark.parametrize("count", [1, 2])
def test_one_is_counted_as_two_are(pair, users, sender, count):
    session, leg = leg_of(pair, sender)
    records, packets, carried = leg.state.records_sent, leg.state.packets_sent, leg.carried
    under_way = leg.state.under_way
    before = under_way.bytes, under_way.datagram_bytes
    for _ in range(count):
        users[sender].stream.send(RUN)
    session.pump(pair.now)
    assert leg.state.records_sent == records + 1
    assert leg.state.packets_sent == packets + count
    added = leg.carried - carried
    assert under_way.datagram_bytes == before[1] + count * len(RUN)
    assert under_way.bytes == before[0] + added + RECORD_COST - count * len(RUN)
    assert leg.state.owes_proof and leg.state.is_watched
    pair.settle()
    other = users["exit" if sender == "client" else "client"]
    assert len(received(other)) == count


def test_what_else_waits_travels_with_it(pair, users):
    session, leg = leg_of(pair, "client")
    exit_leg = pair.end(pair.exit, Direction.DOWNSTREAM)
    users["exit"].stream.send(bytes(RIDE_BYTES))
    pair.exit.pump(pair.now)
    pair.deliver()
    assert exit_leg.state.under_way.datagram_bytes >= RIDE_BYTES
    users["client"].stream.send(RUN)
    session.pump(pair.now)
    assert len(leg.road) == 1
    pair.deliver()
    assert exit_leg.state.under_way.datagram_bytes == 0  # the receipt came along


def test_it_waits_for_the_answer_to_its_stream_and_for_a_writable_leg(pair, users):
    session, leg = leg_of(pair, "client")
    fresh = pair.ask(StreamKind.ICMP)
    fresh.stream.send(RUN)
    session.pump(pair.now)
    pair.settle()
    assert len(received(pair.exit_users[fresh.stream.stream_id])) == 1
    leg.writable = False
    users["client"].stream.send(b"first")
    session.pump(pair.now)
    assert not leg.road
    users["client"].stream.send(b"second")
    leg.writable = True
    pair.settle()
    assert received(users["exit"]) == ["run b'first'", "run b'second'"]
