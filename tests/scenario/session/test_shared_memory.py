"""Memory that is bounded over all sessions of an exit, and all flows of a client: it never grows beyond."""

from __future__ import annotations

import pytest

from halftunnel_vpn.errors import FlowControlError, SessionError
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind
from halftunnel_vpn.protocol.wire import PacketType
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.memory_budget import MIN_SEND, STREAM_COST, Memory
from halftunnel_vpn.session.packet_dispatch import MAX_REFUSED
from halftunnel_vpn.session.receive_side import MIN_WINDOW, WAITING_COST
from halftunnel_vpn.session.send_side import RING

MIB = 1024 * 1024


@pytest.fixture
def memory():
    return Memory(4 * MIB)


@pytest.fixture
def pair(make_pair, memory):
    """Only the exit's memory is shared with others."""
    return make_pair(exit_limits=SessionLimits(memory=memory))


def offer(user):
    """Send as much as there is room for, without anybody acknowledging it."""
    sent = 0
    while room := min(user.stream.room, 65_000):
        user.stream.send(bytes(room))
        sent += room
    return sent


def test_a_peer_that_never_acknowledges_makes_the_exit_keep_no_more_than_its_bound(pair, memory):
    users = [pair.open()[1] for _ in range(20)]
    for user in users:
        user.stream.credited(1 << 40, pair.now)
    for _ in range(200):
        for user in users:
            offer(user)
        for leg in pair.legs:
            leg.writable = True
            leg.road.clear()
        pair.exit.pump(pair.now)
    assert memory.used <= memory.limit + len(users) * MIN_SEND
    assert memory.used > memory.limit // 2


@pytest.fixture
def uploads(make_pair, memory):
    """A client with a budget, and a number of streams to an exit that grants whatever they want."""
    made = make_pair(client_limits=SessionLimits(memory=memory))
    users = [made.open()[0] for _ in range(20)]
    for user in users:
        user.stream.credited(1 << 40, made.now)
    return made, users


def test_an_exit_that_never_acknowledges_makes_the_client_keep_no_more_than_its_bound(uploads, memory):
    pair, users = uploads
    for _ in range(200):
        for user in users:
            offer(user)
        for leg in pair.legs:
            leg.writable = True
            leg.road.clear()
        pair.client.pump(pair.now)
    kept = sum(user.stream.sending.accepted for user in users)
    assert kept <= memory.used <= memory.limit + len(users) * MIN_SEND
    assert memory.used > memory.limit // 2
    pair.client.close(ResetCode.SHUTDOWN, pair.now, tell_peer=False)
    assert memory.used == 0


def test_uploads_go_on_at_the_bound_of_the_client(uploads, memory):
    pair, users = uploads
    memory.take(memory.limit)
    todo = 1_000_000
    while todo:
        size = min(users[0].stream.room, todo)
        assert 0 < size <= MIN_SEND
        users[0].stream.send(bytes(size))
        todo -= size
        pair.settle()
        pair.advance(0.1)
    assert users[0].stream.sending.accepted == 1_000_000


@pytest.mark.parametrize("kind", ["bytes", "datagrams"])
def test_a_client_without_memory_opens_no_stream_and_leaves_no_gap(uploads, memory, kind):
    pair, users = uploads
    memory.take(memory.limit)
    request = OpenRequest(StreamKind.TCP, b"\x01\x02\x03\x04", 80, 0)
    opener = pair.client.open_stream if kind == "bytes" else pair.client.open_datagrams
    with pytest.raises(SessionError, match="use all memory"):
        opener(request, users[0], pair.now)
    assert pair.client_counters.dropped == {"stream-memory-full": 1}
    memory.give_back(memory.limit)
    assert pair.open()[0].stream.stream_id == users[-1].stream.stream_id + 1


def test_streams_without_memory_are_refused_and_counted(pair, memory):
    memory.take(memory.limit)
    client = pair.ask()
    pair.settle()
    assert client.events == ["refused LIMIT"]
    assert pair.exit_counters.dropped == {"stream-memory-full": 1}
    pair.settle()
    pair.advance(1)
    assert not pair.exit.streams and memory.used == memory.limit


def test_streams_that_are_open_go_on_and_all_comes_through(pair, memory):
    client, exit = pair.open()
    memory.take(memory.limit)
    todo = 1_000_000
    while todo:
        size = min(exit.stream.room, todo)
        assert 0 < size <= MIN_SEND
        exit.stream.send(bytes(size))
        todo -= size
        pair.settle()
        pair.advance(0.1)
    assert len(client.received) == 1_000_000


def test_packets_that_come_before_their_turn_cost_what_they_are_until_memory_is_full(pair, memory):
    streams = [pair.open()[1].stream.stream_id for _ in range(10)]
    places = ((stream_id, number) for stream_id in streams for number in range(2, RING))
    kept = 0
    for stream_id, number in places:
        pair.inject(pair.exit, pair.packet(PacketType.DATA, stream_id, number, 1, b"x"))
        if pair.exit_counters.dropped:
            break
        kept += 1
    assert pair.exit_counters.dropped == {"reorder-memory-full": 1}
    assert kept * WAITING_COST > memory.limit // 4
    assert memory.used <= memory.limit
    pair.exit.close(ResetCode.SHUTDOWN, pair.now)
    assert memory.used == 0


@pytest.mark.parametrize("end", ["the gap is filled", "reset-exit", "reset-client", "close"])
def test_packets_that_waited_are_counted_no_more(pair, memory, end):
    client, exit = pair.open()
    before = memory.used
    later = [pair.packet(PacketType.DATA, 1, number, 1, b"later") for number in range(2, 102)]
    pair.inject(pair.exit, *later)
    assert memory.used == before + 100 * WAITING_COST
    if end == "the gap is filled":
        pair.inject(pair.exit, pair.packet(PacketType.DATA, 1, 1, 1, b"first"))
        assert exit.received == b"first" + 100 * b"later"
        assert memory.used == before
        return
    if end == "reset-exit":
        exit.stream.reset(ResetCode.NORMAL)
    elif end == "reset-client":
        client.stream.reset(ResetCode.NORMAL)
        pair.settle()
    else:
        pair.exit.close(ResetCode.SHUTDOWN, pair.now)
    assert memory.used <= STREAM_COST + MIN_WINDOW


def test_what_a_fin_carries_counts_while_it_waits(pair):
    _, exit = pair.open()
    size = exit.stream.receiving.window.granted // 4
    for number in range(2, 6):
        pair.inject(pair.exit, pair.packet(PacketType.FIN, 1, number, 1, bytes(size)))
    assert not pair.exit_counters.dropped
    pair.inject(pair.exit, pair.packet(PacketType.FIN, 1, 6, 1, bytes(size)))
    assert pair.exit_counters.dropped == {"beyond-credit": 1}


@pytest.mark.parametrize("end", ["finish", "reset-client", "reset-exit", "close"])
def test_whatever_the_end_nothing_stays_counted(pair, memory, end):
    client, exit = pair.open()
    datagrams = pair.ask(StreamKind.UDP)
    pair.settle()
    assert memory.used >= 2 * STREAM_COST + MIN_WINDOW
    offer(exit)
    for leg in pair.legs:
        leg.writable = False
    pair.exit_users[datagrams.stream.stream_id].stream.send(bytes(1000))
    assert memory.used > 150_000
    for leg in pair.legs:
        leg.writable = True
    if end == "finish":
        client.stream.finish()
        exit.stream.finish()
        datagrams.stream.close()
    elif end == "reset-client":
        client.stream.reset(ResetCode.NORMAL)
        datagrams.stream.close()
    elif end == "reset-exit":
        for user in pair.exit_users.values():
            user.stream.reset(ResetCode.NORMAL)
    else:
        pair.exit.close(ResetCode.SHUTDOWN, pair.now)
    if end != "close":
        pair.settle()
        pair.advance(1)
    assert memory.used == 0


def test_what_a_stalled_destination_holds_stays_counted_after_both_ends_have_finished(pair, memory):
    client, exit = pair.open()
    exit.reads = False
    client.stream.send(bytes(65_000))
    client.stream.finish()
    exit.stream.finish()
    pair.settle()
    pair.advance(1)
    assert not pair.exit.streams and exit.unread == 65_000
    assert memory.used == 65_000
    exit.read_all()
    assert memory.used == 0


def test_datagrams_find_no_memory_and_are_dropped(pair, memory):
    datagrams = pair.ask(StreamKind.UDP)
    pair.settle()
    memory.take(memory.limit)
    pair.exit_users[datagrams.stream.stream_id].stream.send(bytes(1000))
    assert pair.exit_counters.dropped == {"datagram-memory-full": 1}


def test_refusals_that_nobody_acknowledges_have_a_bound(make_pair):
    pair = make_pair(limits=SessionLimits(max_streams=10))
    user = pair.ask()
    payload = bytes(user.stream.sending.control[0][1])
    pair.settle()
    with pytest.raises(FlowControlError, match="too-many-refusals"):
        for number in range(2, 10_000):
            pair.inject(pair.exit, pair.packet(PacketType.OPEN, number, 0, 0, payload))
    assert len(pair.exit.streams) == 10 + MAX_REFUSED
    pair.exit.pump(pair.now)
    for stream_id in list(pair.exit.streams)[10:]:
        pair.inject(pair.exit, pair.packet(PacketType.ACK, stream_id, 0, 1, bytes(8)))
    assert len(pair.exit.streams) <= 10 + MAX_REFUSED // 2, "who acknowledges may ask again"
    pair.inject(pair.exit, pair.packet(PacketType.OPEN, number, 0, 0, payload))
