"""Datagram streams of a client at the exit: real sockets on loopback, both event loops."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.protocol.datagram import (
    MAX_RUN_DATA,
    DataRun,
    ErrorRun,
    decode_run,
    encode_error,
    encode_run_header,
)
from halftunnel_vpn.protocol.stream_messages import StreamKind
from halftunnel_vpn.server.datagram_batch import FIRST_SIZE, MANY, MAX_JOINED
from halftunnel_vpn.server.datagram_names import MAX_UNRESOLVED
from halftunnel_vpn.server.egress import EgressPolicy

HERE, SIX = (ipaddress.ip_address(text).packed for text in ("127.0.0.1", "::1"))
UDP_SEGMENT = 103


@pytest.fixture
def tunnel(in_memory, resolver):
    """Loopback is allowed; names are what ``resolver`` says."""
    return in_memory(resolvers=[resolver.endpoint])


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A UDP socket that somebody on the Internet has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(30)
        yield sock


@pytest.fixture
def hears(server) -> Callable[[], object]:
    """Return the next datagram that the server receives, and its sender."""
    return lambda: asyncio.to_thread(server.recvfrom, 65535)


def runs(user) -> list[DataRun | ErrorRun]:
    return [decode_run(run) for run in user.runs]


async def test_an_error_does_not_end_the_conversation(tunnel, server, hears):
    user = tunnel.open(b"", 0, StreamKind.UDP)
    for number in range(1, 4):
        user.stream.send(encode_run_header(HERE, 9), b"nobody is there")
        await user.until(lambda: len(user.runs) == 2 * number - 1)  # noqa: B023
        user.stream.send(encode_run_header(HERE, server.getsockname()[1]), b"hello")
        _, sender = await hears()
        server.sendto(b"answer", sender)
        await user.until(lambda: len(user.runs) == 2 * number)  # noqa: B023
    error, answer = runs(user)[-2:]
    assert error == ErrorRun(IcmpErrorKind.PORT_UNREACHABLE, HERE, HERE, 9)
    assert bytes(answer.data) == b"answer"


@pytest.mark.parametrize("size", [1110, 1400, 1472])
async def test_a_long_run_of_answers_is_cut_to_fit_records(tunnel, server, hears, size):
    user = tunnel.open(b"", 0, StreamKind.UDP)
    user.stream.send(encode_run_header(HERE, server.getsockname()[1]), b"go")
    _, sender = await hears()
    answer = os.urandom(65_490)  # the longest that the kernel hands over in one piece, nearly
    assert len(answer) > MAX_RUN_DATA
    server.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
    server.sendto(answer, sender)
    await user.until(lambda: sum(len(run.data) for run in runs(user)) == len(answer))
    assert b"".join(run.data for run in runs(user)) == answer
    assert all(len(run.data) % size == 0 for run in runs(user)[:-1])


async def test_answers_that_wait_together_keep_their_order_sizes_and_sources(tunnel, server, hears):
    user = tunnel.open(b"", 0, StreamKind.UDP)
    user.stream.send(encode_run_header(HERE, server.getsockname()[1]), b"go")
    _, sender = await hears()
    answers = [bytes([number]) * size for number, size in enumerate([9, 9, 9, 4, 9, 0, 9, 9, *[1200] * 150])]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for number, answer in enumerate(answers):
            (other if number % 50 == 7 else server).sendto(answer, sender)
        other_port = other.getsockname()[1]
    await user.until(lambda: sum(max(1, len(run.data)) for run in runs(user)) == sum(map(len, answers)) + 1)
    got = [
        (run.port, bytes(run.data[at : at + (run.segment_size or 9999)]))
        for run in runs(user)
        for at in range(0, max(1, len(run.data)), run.segment_size or 9999)
    ]
    ports = [other_port if number % 50 == 7 else server.getsockname()[1] for number in range(len(answers))]
    assert got == list(zip(ports, answers, strict=True))
    assert len(runs(user)) < 40


async def test_whoever_reads_a_run_of_several_gets_its_turn(tunnel, server, hears, monkeypatch):
    yielded: list[None] = []
    monkeypatch.setattr(os, "getpriority", lambda which, who: -10)
    monkeypatch.setattr(os, "sched_yield", lambda: yielded.append(None))
    user = tunnel.open(b"", 0, StreamKind.UDP)
    port = server.getsockname()[1]
    user.stream.send(encode_run_header(HERE, port, segment_size=100), bytes(350))
    assert [len((await hears())[0]) for _ in range(4)] == [100, 100, 100, 50]
    user.stream.send(encode_run_header(HERE, port), b"alone")
    assert (await hears())[0] == b"alone"
    assert len(yielded) == 1


async def flooded(tunnel, server, hears):
    """A stream that was used once, and a function that sends so many numbered answers of 1000 bytes to it."""
    user = tunnel.open(b"", 0, StreamKind.UDP)
    user.stream.send(encode_run_header(HERE, server.getsockname()[1]), b"go")
    _, sender = await hears()

    def answer(first: int, count: int) -> None:
        for number in range(first, first + count):
            server.sendto(b"%1000d" % number, sender)

    return user, answer


def numbers(user) -> list[int]:
    return [
        int(bytes(run.data[at : at + 1000]))
        for run in runs(user)
        for at in range(0, len(run.data), run.segment_size or 1000)
    ]


@pytest.mark.parametrize(("count", "times"), [(MANY - 1, 0), (MANY, 1), (MAX_JOINED // FIRST_SIZE, 0)])
async def test_a_sender_of_many_may_fill_a_run(tunnel, server, hears, monkeypatch, count, times):
    user, answer = await flooded(tunnel, server, hears)
    yielded: list[None] = []
    monkeypatch.setattr(os, "getpriority", lambda which, who: -3)
    monkeypatch.setattr(os, "sched_yield", lambda: yielded.append(None))
    answer(0, 1 + count)
    await user.until(lambda: len(numbers(user)) == 1 + count)
    # After a silence the first is read as if it were alone.
    assert [len(run.data) // 1000 for run in runs(user)] == [1, count]
    assert numbers(user) == list(range(1 + count))
    assert len(yielded) == times


async def test_what_a_busy_leg_cannot_take_stays_in_the_socket_for_a_moment(
    tunnel, server, hears, counters, until
):
    user, answer = await flooded(tunnel, server, hears)
    for link in tunnel.links:
        link.blocked = True
    [stream] = tunnel.exit.streams.values()
    answer(0, 140)
    await until(lambda: stream.has_enough)
    answer(140, 100)
    for link in tunnel.links:
        link.blocked = False
    tunnel.exit.wake()
    await user.until(lambda: len(numbers(user)) == 240)
    assert numbers(user) == list(range(240))
    assert not counters.dropped["datagram-queue-full"]


async def test_what_waits_for_a_leg_that_stands_still_is_the_newest(tunnel, server, hears, counters, until):
    user, answer = await flooded(tunnel, server, hears)
    for link in tunnel.links:
        link.blocked = True
    [stream] = tunnel.exit.streams.values()
    for first in range(0, 1000, 100):  # few enough for any kernel's buffer
        answer(first, 100)
        last = b"%1000d" % (first + 99)
        await until(lambda last=last: stream._runs and stream._runs[-1][1][-1][-1000:] == last)
    for link in tunnel.links:
        link.blocked = False
    tunnel.exit.wake()
    await user.until(lambda: 999 in numbers(user))
    got = numbers(user)
    assert got == list(range(got[0], 1000)) and got[0] > 0
    assert counters.dropped["datagram-queue-full"]


async def test_datagrams_wait_for_the_name_and_keep_their_order(tunnel, resolver, server, hears):
    resolver.addresses["here.test"] = ["127.0.0.1"]
    user = tunnel.open(b"", 0, StreamKind.UDP)
    for number in range(MAX_UNRESOLVED):
        user.stream.send(encode_run_header("here.test", server.getsockname()[1]), b"%d" % number)
    heard = [await hears() for _ in range(MAX_UNRESOLVED)]
    assert [data for data, _ in heard] == [b"%d" % number for number in range(MAX_UNRESOLVED)]
    assert sorted(resolver.asked) == [("here.test", "A"), ("here.test", "AAAA")]

    server.sendto(b"answer", heard[0][1])
    await user.heard("run")
    assert runs(user)[0].address == "here.test"


async def test_what_waits_for_names_is_bounded(tunnel, counters, until):
    user = tunnel.open(b"", 0, StreamKind.UDP)
    for number in range(MAX_UNRESOLVED + 3):
        user.stream.send(encode_run_header(f"silent{number % 5}.test", 9), b"data")
    await until(lambda: counters.dropped["datagram-name-unresolved"] == 3)
    await user.until(lambda: len(user.runs) == MAX_UNRESOLVED)
    assert counters.dropped["datagram-name-not-found"] == MAX_UNRESOLVED


async def test_a_name_without_addresses_is_told_for_each_datagram(tunnel, counters):
    user = tunnel.open(b"", 0, StreamKind.UDP)
    for port in (1, 2):
        user.stream.send(encode_run_header("nothing.test", port), b"data")
    await user.until(lambda: len(user.runs) == 2)
    assert runs(user) == [
        ErrorRun(IcmpErrorKind.HOST_UNREACHABLE, b"", "nothing.test", port) for port in (1, 2)
    ]
    assert counters.dropped["datagram-name-not-found"] == 2


async def test_of_several_addresses_a_permitted_one_is_taken(in_memory, resolver, server, hears):
    policy = EgressPolicy(allow=[ipaddress.ip_network("127.0.0.1/32")])
    tunnel = in_memory(resolvers=[resolver.endpoint], policy=policy)
    resolver.addresses["some.test"] = ["127.0.0.2", "::1", "127.0.0.1"]
    user = tunnel.open(b"", 0, StreamKind.UDP)
    user.stream.send(encode_run_header("some.test", server.getsockname()[1]), b"data")
    assert (await hears())[0] == b"data"


async def test_a_stream_given_up_while_its_name_is_asked_for_sends_nothing(tunnel, resolver, until):
    user = tunnel.open(b"", 0, StreamKind.UDP)
    user.stream.send(encode_run_header("silent.test", 9), b"data")
    await until(lambda: resolver.asked)
    user.stream.close()
    await tunnel.idle()


async def test_what_is_no_datagram_is_counted(tunnel, counters, until):
    user = tunnel.open(b"", 0, StreamKind.UDP)
    user.stream.send(b"\x01")
    user.stream.send(encode_error(ErrorRun(IcmpErrorKind.PORT_UNREACHABLE, b"", HERE, 9)))
    await until(lambda: counters.dropped["datagram-unexpected-error"])
    assert counters.dropped["datagram-truncated"] == 1
    assert not user.runs


async def test_an_empty_datagram_is_one_too(tunnel, server, hears):
    user = tunnel.open(b"", 0, StreamKind.UDP)
    user.stream.send(encode_run_header(HERE, server.getsockname()[1]))
    data, sender = await hears()
    assert data == b""
    server.sendto(b"", sender)
    await user.heard("run")
    assert runs(user)[0].data == b""


async def test_a_stream_given_up_leaves_no_socket(tunnel, server, hears, until):
    user = tunnel.open(b"", 0, StreamKind.UDP)
    user.stream.send(encode_run_header(HERE, server.getsockname()[1]), b"hello")
    _, sender = await hears()
    user.stream.close()
    await tunnel.idle()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", sender[1]))  # the port is free


async def test_a_second_socket_of_a_stream_counts_as_one(in_memory, server, hears, counters, until):
    tunnel = in_memory(streams_per_client=3)
    users = [tunnel.open(b"", 0, StreamKind.UDP) for _ in range(2)]
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
        six.bind(("::1", 0))
        six.settimeout(30)
        for number, user in enumerate(users):
            user.stream.send(encode_run_header(HERE, server.getsockname()[1]), b"four")
            await hears()
            user.stream.send(encode_run_header(SIX, six.getsockname()[1]), b"six")
            if not number:
                await asyncio.to_thread(six.recvfrom, 100)
        await users[1].heard("run")
        assert runs(users[1]) == [ErrorRun(IcmpErrorKind.HOST_UNREACHABLE, b"", SIX, six.getsockname()[1])]
        assert counters.dropped == {"stream-limit": 1, "udp-no-socket": 1}
        assert tunnel.nat.total == 3
        users[0].stream.close()
        await until(lambda: tunnel.nat.total == 1)
        users[1].stream.send(encode_run_header(SIX, six.getsockname()[1]), b"now")
        assert (await asyncio.to_thread(six.recvfrom, 100))[0] == b"now"
    for user in users:
        user.stream.close()
    await tunnel.idle()
