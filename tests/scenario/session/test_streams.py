"""Life of byte streams and datagram streams between two session cores."""

from __future__ import annotations

import random

import pytest

from halftunnel_vpn.errors import SessionError, SessionExpired, StreamClosed
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind
from halftunnel_vpn.protocol.wire import PacketType
from halftunnel_vpn.session.datagram_stream import QUEUE_RUNS
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.stream_states import StreamState


def send_all(pair, user, data: bytes) -> None:
    """Send ``data`` as fast as the stream takes it, letting the road work whenever it is full."""
    view = memoryview(data)
    while view:
        room = min(user.stream.room, 65000)
        if room:
            user.stream.send(view[:room])
            view = view[room:]
        else:
            pair.settle()
    pair.settle()


def test_bytes_travel_both_ways_and_each_half_closes_alone(pair):
    client, exit = pair.open()
    assert client.events == ["opened"]
    client.stream.send(b"GET /")
    client.stream.finish()
    pair.settle()
    assert (bytes(exit.received), exit.events) == (b"GET /", ["finished"])
    answer = random.Random(7).randbytes(3_000_000)
    send_all(pair, exit, answer)
    assert client.received == answer
    exit.stream.finish()
    pair.settle()
    assert client.events == ["opened", "finished"]
    pair.advance(1.0)
    assert not pair.client.streams and not pair.exit.streams


def test_a_refusal_carries_its_reason(pair):
    pair.answer = ResetCode.REFUSED
    client, _ = pair.open()
    assert client.events == ["refused REFUSED"]
    pair.advance(1.0)
    assert not pair.client.streams and not pair.exit.streams


def test_a_reset_reaches_the_other_end_and_drops_what_waited(pair):
    client, exit = pair.open()
    client.stream.send(b"x" * 100_000)
    client.stream.reset(ResetCode.CONNECTION_RESET)
    pair.settle()
    assert exit.events == ["aborted CONNECTION_RESET"]
    assert not exit.received
    pair.advance(1.0)
    assert not pair.client.streams and not pair.exit.streams
    with pytest.raises(StreamClosed):
        client.stream.send(b"y")


def test_a_reader_that_stalls_stops_its_sender_and_nobody_else(pair):
    slow, slow_exit = pair.open()
    fast, fast_exit = pair.open()
    slow.reads = False
    sent = 0
    while room := min(slow_exit.stream.room, 65000):
        slow_exit.stream.send(bytes(room))
        sent += room
        pair.settle()
    assert len(slow.received) == slow.stream.receiving.window.granted
    send_all(pair, fast_exit, bytes(2_000_000))
    assert len(fast.received) == 2_000_000
    slow.read_all()
    pair.settle()
    assert len(slow.received) == sent


def test_a_sender_that_waits_to_be_told_of_room_sends_everything(pair):
    client, exit = pair.open()
    left = 2_000_000

    def send_what_fits() -> None:
        nonlocal left
        while left and (room := min(exit.stream.room, left, 65000)):
            exit.stream.send(bytes(room))
            left -= room

    exit.on_room = send_what_fits
    send_what_fits()
    pair.settle()
    assert len(client.received) == 2_000_000


def test_a_pure_download_sends_less_than_a_hundredth_upstream(pair):
    client, exit = pair.open()
    up_before = sum(leg.carried for leg in pair.legs if leg.owner is pair.client)
    send_all(pair, exit, bytes(20_000_000))
    assert len(client.received) == 20_000_000
    up = sum(leg.carried for leg in pair.legs if leg.owner is pair.client) - up_before
    assert up < 20_000_000 / 100


def test_credit_grows_while_it_is_used_up_fast_and_stays_within_the_pool(make_pair):
    pair = make_pair(limits=SessionLimits(window_pool=1_000_000))
    users = [pair.open() for _ in range(4)]
    for client, exit in users:
        send_all(pair, exit, bytes(3_000_000))
        assert len(client.received) == 3_000_000
    sizes = [client.stream.receiving.window.size for client, _ in users]
    assert max(sizes) > 128 * 1024
    assert sum(sizes) <= 1_000_000 + 4 * 16 * 1024


def test_interactive_streams_overtake_bulk(pair):
    bulk, _ = pair.open()
    for leg in pair.legs:
        leg.capacity = 1
    while room := min(bulk.stream.room, 65000):
        bulk.stream.send(bytes(room))
    key, key_exit = pair.open()
    assert key.stream.sending.accepted == 0
    key.stream.send(b"ls\n")
    pair.client.pump(pair.now)
    pair.deliver()
    assert bytes(key_exit.received) == b"ls\n"


def test_bulk_streams_share_the_road(pair):
    users = [pair.open() for _ in range(4)]
    for leg in pair.legs:
        leg.capacity = 1
    for client, _ in users:
        while room := min(client.stream.room, 65000):
            client.stream.send(bytes(room))
    for _ in range(40):
        pair.client.pump(pair.now)
        pair.deliver()
        for client, _ in users:
            while room := min(client.stream.room, 65000):
                client.stream.send(bytes(room))
        pair.exit.pump(pair.now)
        pair.deliver()
    received = [len(exit.received) for _, exit in users]
    assert min(received) > 0.8 * max(received)


def test_datagrams_arrive_as_they_were_sent(pair):
    client, exit = pair.open(StreamKind.UDP)
    client.stream.send(b"one", b"!")
    client.stream.send(b"")
    pair.settle()
    assert exit.events == ["run b'one!'", "run b''"]
    exit.stream.send(b"two")
    pair.settle()
    assert client.events == ["run b'two'"]
    client.stream.close()
    pair.settle()
    assert exit.events[-1] == "aborted NORMAL"
    pair.advance(1.0)
    assert not pair.client.streams and not pair.exit.streams


def test_the_oldest_datagrams_go_first_when_the_queue_is_full(pair):
    client, exit = pair.open(StreamKind.UDP)
    for leg in pair.legs:
        leg.writable = False
    for number in range(QUEUE_RUNS + 10):
        client.stream.send(str(number).encode())
    assert pair.client_counters.dropped["datagram-queue-full"] == 10
    for leg in pair.legs:
        leg.writable = True
    pair.settle()
    assert exit.events[0] == "run b'10'" and exit.events[-1] == f"run b'{QUEUE_RUNS + 9}'"


def test_a_datagram_that_fits_no_record_is_dropped_and_counted(pair):
    client, exit = pair.open(StreamKind.UDP)
    client.stream.send(bytes(65536))
    pair.settle()
    assert exit.events == []
    assert pair.client_counters.dropped["datagram-too-long"] == 1


def test_more_streams_than_the_exit_allows_are_refused(make_pair):
    pair = make_pair(limits=SessionLimits(max_streams=3))
    pair.client.context.limits = SessionLimits(max_streams=10)
    users = [pair.open() for _ in range(3)]
    request = OpenRequest(StreamKind.TCP, b"\xc6\x33\x64\x02", 80, 0)
    fourth = type(users[0][0])()
    fourth.stream = pair.client.open_stream(request, fourth, pair.now)
    pair.settle()
    assert fourth.events == ["refused LIMIT"]
    assert pair.exit_counters.dropped["too-many-streams"] == 1


def test_a_session_can_end_while_it_has_refused_streams(make_pair):
    pair = make_pair(limits=SessionLimits(max_streams=1))
    pair.client.context.limits = SessionLimits(max_streams=10)
    pair.open()
    request = OpenRequest(StreamKind.TCP, b"\xc6\x33\x64\x02", 80, 0)
    pair.inject(pair.exit, pair.packet(PacketType.OPEN, 5, payload=request.encode()))
    assert len(pair.exit.streams) == 2  # the RESET of the second one is not acknowledged
    pair.exit.close(ResetCode.SHUTDOWN, pair.now)
    assert not pair.exit.streams


def test_the_client_opens_no_more_than_its_bound(make_pair):
    pair = make_pair(limits=SessionLimits(max_streams=1))
    pair.open()
    with pytest.raises(SessionError):
        pair.open()


def test_a_goodbye_ends_everything_at_the_other_end(pair):
    client, exit = pair.open()
    pair.client.close(ResetCode.SHUTDOWN, pair.now)
    assert client.events == ["opened", "aborted SHUTDOWN"]
    with pytest.raises(SessionExpired):
        pair.deliver()
    with pytest.raises(SessionExpired):
        pair.client.open_stream(OpenRequest(StreamKind.TCP, b"\xc6\x33\x64\x02", 80, 0), client, pair.now)
    assert exit.events == []


def test_idle_legs_are_kept_alive_and_measured(pair):
    pair.advance(100.0)
    assert all(leg.close_reason is None for leg in pair.legs)
    assert all(leg.state.round_trip == 0.0 for leg in pair.legs)
    assert all(leg.state.records_received > 10 for leg in pair.legs)


def test_a_leg_that_swallows_everything_is_closed(pair):
    dead = pair.legs[0]
    for end in (dead, dead.peer):
        end.alive = False
    pair.advance(40.0)
    assert dead.close_reason == "leg-silent" and dead.peer.close_reason == "leg-silent"
    assert all(leg.close_reason is None for leg in pair.legs if leg not in (dead, dead.peer))


def test_bytes_sent_before_the_exit_has_connected_wait_there(pair):
    pair.accepts = False
    client, exit = pair.open()
    client.stream.sending.credit = 16 * 1024  # as an exit's hello grants it
    client.stream.send(b"early")
    client.stream.finish()
    pair.settle()
    assert bytes(exit.received) == b"early" and exit.events == ["finished"]
    exit.stream.accept()
    pair.settle()
    assert client.events == ["opened"]
    assert exit.stream.state is StreamState.HALF_CLOSED_REMOTE


def test_directions_use_their_own_legs_only(pair):
    client, exit = pair.open()
    before = {leg: leg.carried for leg in pair.legs}
    send_all(pair, client, bytes(1_000_000))
    grown = {(leg.state.direction, leg.owner.is_client): leg.carried - before[leg] for leg in pair.legs}
    assert grown[Direction.UPSTREAM, True] > 1_000_000
    assert grown[Direction.UPSTREAM, False] == 0
    assert grown[Direction.DOWNSTREAM, True] == 0
    assert len(exit.received) == 1_000_000


@pytest.mark.parametrize("order", ["in turn", "FIN first", "sent again"])
def test_the_user_knows_that_nothing_but_the_fin_follows(pair, order):
    client, exit = pair.open()
    pair.advance(0.1)
    told = []
    client.data_received = lambda data, now: told.append((bytes(data), client.stream.fin_follows))
    exit.stream.send(b"first")
    pair.exit.pump(pair.now)
    exit.stream.send(b"last")
    exit.stream.finish()
    pair.exit.pump(pair.now)
    (down,) = [leg for leg in pair.legs if len(leg.road) == 2]
    if order == "FIN first":
        down.road.reverse()
    elif order == "sent again":
        down.road.append(down.road[-1])
    pair.deliver()
    # what comes before its turn is handed on later, and by itself
    assert told == [(b"first", False), (b"last", order != "FIN first")]
    assert client.events[-1] == "finished" and client.events.count("finished") == 1
    assert not client.stream.fin_follows
