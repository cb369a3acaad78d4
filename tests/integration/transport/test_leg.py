"""Two ends of a leg, both ours, over TLS and without."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import socket
import struct
import termios

import pytest

from halftunnel_vpn.errors import RoadError
from halftunnel_vpn.session.legs import NO_MOVEMENT
from halftunnel_vpn.transport import leg as leg_module
from halftunnel_vpn.transport.leg_phase import LegPhase
from halftunnel_vpn.transport.sockets import NOTSENT_LOWAT, WRITE_LIMIT


async def test_a_record_of_any_size_arrives_both_ways(exit_server, size):
    leg, owner, other_leg, other = await exit_server.pair()
    record = os.urandom(size)
    leg.send(record)
    assert await other.received(1) == [record]
    other_leg.send(record)
    assert await owner.received(1) == [record]
    assert leg.bytes_in == other_leg.bytes_in == size


async def test_many_records_arrive_whole_and_in_order(exit_server):
    leg, owner, other_leg, other = await exit_server.pair()
    dice = random.Random(7)
    records = [os.urandom(dice.choice([0, 3, 90, 1400, 20_000, 65_536])) for _ in range(400)]
    for record in records:
        await owner.until(lambda _: leg.writable)
        await other.until(lambda _: other_leg.writable)
        leg.send(memoryview(record))
        other_leg.send(bytearray(record))
    assert await other.received(len(records)) == records
    assert await owner.received(len(records)) == records


async def test_a_record_is_lent_to_a_client_for_the_call_only(exit_server):
    leg, _, other_leg, _ = await exit_server.pair()
    kept = []
    arrived = asyncio.Event()

    class Keeper:
        def record_received(self, leg, record):
            kept.append(record)
            arrived.set()

        def leg_closed(self, leg, reason): ...

    leg.listener = Keeper()
    other_leg.send(b"mine")
    await arrived.wait()
    with pytest.raises(ValueError, match="released"):
        bytes(kept[0])


async def test_the_listener_may_be_replaced_from_within_a_call(exit_server, recorder):
    leg, _, other_leg, other = await exit_server.pair()
    successor = recorder()
    successor.leg = other_leg
    other.record_received = lambda leg, record: setattr(leg, "listener", successor)
    for record in (b"for the first", b"for the second", b"and this"):
        leg.send(record)
    assert await successor.received(2) == [b"for the second", b"and this"]


async def test_a_peer_that_does_not_read_makes_the_leg_unwritable_until_it_reads(exit_server):
    leg, owner, other_leg, other = await exit_server.pair()
    other_leg._transport.pause_reading()
    sent = await fill(leg, owner)
    # What waits in this process is one record at the most, whatever the kernel took.
    assert 0 < leg._transport.get_write_buffer_size() <= 65_536 + 200
    waited = owner.writable_again
    other_leg._transport.resume_reading()
    await owner.until(lambda r: r.writable_again > waited)
    assert leg.writable
    assert len(await other.received(sent)) == sent


async def test_no_layer_of_the_process_keeps_a_queue_of_its_own(exit_server):
    leg, owner, other_leg, _ = await exit_server.pair()
    other_leg._transport.pause_reading()
    sent = await fill(leg, owner, size=16_384)
    # One record that the socket took in part, and with TLS one more that its layer was given.
    assert sent * 16_384 - taken_by_the_kernel(leg) < 2 * 16_384 + 1000
    leg.abort()
    other_leg.abort()


def taken_by_the_kernel(leg):
    """Bytes that left the process: those acknowledged (tcp_info.tcpi_bytes_acked) and those on their way."""
    sock = leg._transport.get_extra_info("socket")
    (acknowledged,) = struct.unpack_from("Q", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), 120)
    (underway,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    return acknowledged + underway


async def fill(leg, owner, *, size=65_536):
    """Send until nothing moves any more; return how many records were sent."""
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.1):
                await owner.until(lambda _: leg.writable)
            leg.send(bytes(size))
            sent += 1
    return sent


async def test_an_owner_that_sends_without_asking_loses_the_leg(exit_server):
    leg, owner, other_leg, _ = await exit_server.pair()
    other_leg._transport.pause_reading()
    sent = 0
    while leg.state is LegPhase.OPEN:
        leg.send(bytes(65_536))
        sent += 65_536
        await asyncio.sleep(0)
    assert await owner.closed() == "write-limit"
    assert sent > WRITE_LIMIT
    other_leg._transport.resume_reading()


async def test_its_bytes_are_seen_to_move_whether_or_not_they_make_records(exit_server, until):
    leg, owner, other_leg, _ = await exit_server.pair()
    before = other_leg.movement().received
    other_leg._transport.pause_reading()
    await fill(leg, owner)
    stuck = leg.movement()
    assert stuck.taken < stuck.given
    assert other_leg.movement().received > before
    other_leg._transport.resume_reading()
    await until(lambda: leg.movement().taken >= stuck.given)
    assert leg.movement().given >= stuck.given


async def test_a_leg_that_is_gone_does_not_move(exit_server):
    leg, owner, _, other = await exit_server.pair()
    leg.abort()
    await owner.closed()
    await other.closed()
    assert leg.movement() == NO_MOVEMENT


async def test_close_ends_in_good_order_on_both_sides(exit_server):
    leg, owner, _, other = await exit_server.pair()
    leg.send(b"last words")
    leg.close()
    assert leg.state is LegPhase.CLOSING
    assert not leg.writable
    assert await other.closed() == "peer-closed-1000"
    assert other.records == [b"last words"]
    assert await owner.closed() == "closed"
    with pytest.raises(RoadError) as raised:
        leg.send(b"too late")
    assert raised.value.reason == "leg-not-open"
    leg.close()  # once more changes nothing


async def test_the_exit_may_close_first(exit_server):
    _, owner, other_leg, other = await exit_server.pair()
    other_leg.close(4000, "rotation")
    assert await owner.closed() == "peer-closed-4000"
    assert await other.closed() == "closed"


async def test_what_was_on_its_way_still_arrives_after_close(exit_server):
    leg, owner, other_leg, _ = await exit_server.pair()
    for number in range(20):
        other_leg.send(bytes([number]) * 1000)
    leg.close()
    assert await owner.closed() == "closed"
    assert owner.records == [bytes([number]) * 1000 for number in range(20)]


async def test_a_refused_leg_hears_nothing_more(exit_server):
    leg, owner, other_leg, other = await exit_server.pair()
    leg.send(b"nonsense")
    leg.send(b"more")
    other.record_received = lambda leg, record: (other.records.append(bytes(record)), leg.refuse())
    assert await owner.closed() == "peer-closed-1008"
    assert await other.closed() == "refused"
    assert other.records == [b"nonsense"]
    assert other_leg.bytes_in == len(b"nonsense")


async def test_abort_is_told_to_both_but_not_from_within_the_call(exit_server):
    leg, owner, _, other = await exit_server.pair()
    leg.abort()
    assert owner.reason is None
    assert await owner.closed() == "aborted"
    assert await other.closed() == "connection-lost"
    leg.abort()


async def test_a_peer_that_never_answers_the_close_is_cut_off(exit_server, monkeypatch):
    monkeypatch.setattr(leg_module, "CLOSE_TIMEOUT", 0.1)
    leg, owner, other_leg, other = await exit_server.pair()
    other_leg._transport.pause_reading()
    leg.close()
    assert await owner.closed() == "close-timeout"
    other_leg._transport.resume_reading()
    await other.closed()


async def test_the_socket_is_tuned_for_late_decisions(exit_server):
    leg, _, other_leg, _ = await exit_server.pair()
    for end in (leg, other_leg):
        sock = end._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == NOTSENT_LOWAT
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


async def test_times_are_readings_of_the_clock_it_was_given(start_exit, recorder):
    now = [100.0]
    exit_server = await start_exit(clock=lambda: now[0])
    leg, _, other_leg, other = await exit_server.pair()
    assert other_leg.opened_at == other_leg.last_received_at == 100.0
    now[0] = 107.5
    leg.send(b"x")
    await other.received(1)
    assert (other_leg.opened_at, other_leg.last_received_at) == (100.0, 107.5)


async def test_a_record_that_is_too_long_is_the_callers_mistake(exit_server):
    leg, *_ = await exit_server.pair()
    with pytest.raises(ValueError, match="65536"):
        leg.send(bytes(65_537))
