"""Sockets of legs as the kernel reports them: congestion control, send buffer, what may wait unsent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.transport.kernel.bbr_restart import Recollection, estimate_of, restart_bbr
from halftunnel_vpn.transport.kernel.notsent_bound import MAX_NOTSENT, POLL_BYTES, POLL_INTERVAL, bound_for
from halftunnel_vpn.transport.kernel.send_buffer import SEND_BUFFER, _may_have, prepare
from halftunnel_vpn.transport.sockets import NOTSENT_LOWAT

ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
DEFAULT = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def control_of(leg) -> str:
    sock = leg._transport.get_extra_info("socket")
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


@pytest.mark.parametrize("name", ALLOWED)
async def test_both_ends_of_a_leg_have_what_was_asked_for(start_exit, recorder, name):
    exit_server = await start_exit(congestion=name)
    leg = await exit_server.dial(recorder(), congestion=name)
    other = await exit_server.arrived()
    assert control_of(leg) == control_of(await other.opened()) == name


async def test_what_the_kernel_does_not_have_is_counted_and_gone_without(start_exit, recorder):
    counters = Counters()
    exit_server = await start_exit(congestion="nonesuch", counters=counters)
    assert counters.counted["congestion-control-refused"] == 1
    leg = await exit_server.dial(recorder(), congestion="nonesuch")
    other = await exit_server.arrived()
    assert control_of(leg) == control_of(await other.opened()) == DEFAULT


def test_the_send_buffer_is_enlarged_where_that_is_allowed_and_never_fixed_smaller():
    with socket.socket() as untouched, socket.socket() as sock:
        assert prepare(sock, "system")
        before = untouched.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        after = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    allowed = os.geteuid() == 0 or _may_have(SEND_BUFFER // 2)
    assert after == (SEND_BUFFER if allowed else before)


def test_a_sandbox_without_the_option_leaves_the_buffer_to_wmem_max():
    class Sandboxed(socket.socket):
        def setsockopt(self, level, name, value):
            if (level, name) == (socket.SOL_SOCKET, 32):  # SO_SNDBUFFORCE
                raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
            super().setsockopt(level, name, value)

    with Sandboxed() as sock, socket.socket() as untouched:
        assert prepare(sock, "system")
        size, before = (one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for one in (sock, untouched))
    assert size == (SEND_BUFFER if _may_have(SEND_BUFFER // 2) else before)


@pytest.mark.parametrize(
    ("rate", "round_trip", "expected"),
    [
        (0, 0.0, NOTSENT_LOWAT),
        (2.5e6, 0.050, NOTSENT_LOWAT),  # 20 Mbit/s: 4 ms are 10 kB
        (25e6, 0.050, 100_000),  # 200 Mbit/s: 4 ms
        (25e6, 0.016, 50_000),  # an eighth of a short round trip
        (1.25e9, 0.0001, NOTSENT_LOWAT),  # next door
        (1.25e9, 0.100, MAX_NOTSENT),
    ],
)
def test_what_may_wait_unsent_lasts_until_the_sender_is_awake(rate, round_trip, expected):
    assert bound_for(rate, round_trip) == expected


async def test_the_bound_is_looked_at_again_and_again(start_exit):
    exit_server = await start_exit()
    leg, _, _, other = await exit_server.pair()
    sock = leg._transport.get_extra_info("socket")
    looks = set()
    sent = 0
    while len(looks) < 3:
        sent += 1
        leg.send(bytes(65_000))
        await other.received(sent)
        looks.add(leg._unsent.next_check)
    bound = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
    assert NOTSENT_LOWAT <= bound <= MAX_NOTSENT


async def test_the_kernel_is_not_asked_about_a_rate_that_a_few_bytes_do_not_show(start_exit):
    exit_server = await start_exit()
    leg, *_ = await exit_server.pair()
    for sent in range(1, 4):
        leg.send(bytes(100))
        assert leg._unsent.written == sent * 100
        while leg._clock() < leg._unsent.next_check:  # noqa: ASYNC110
            await asyncio.sleep(POLL_INTERVAL)
    leg.send(bytes(POLL_BYTES))
    assert leg._unsent.written == 0


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection, which do not block; the first one sends with bbr, if that is there."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as near:
        if "bbr" in ALLOWED:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        near.connect(server.getsockname())
        far, _ = server.accept()
        with far:
            near.setblocking(False)
            far.setblocking(False)
            yield near, far


@pytest.mark.skipif("bbr" not in ALLOWED, reason="this kernel lets nobody use bbr")
def test_bbr_that_has_forgotten_begins_anew_and_nothing_is_lost(connection):
    near, far = connection
    piece, sent, received = bytes(range(256)) * 256, 0, bytearray()

    def until(condition: Callable[[], bool]) -> None:
        nonlocal sent
        for _ in range(10_000):
            with contextlib.suppress(BlockingIOError):
                while True:  # there is always more to send than leaves, so that bbr learns
                    sent += near.send(piece[sent % 256 :])
            with contextlib.suppress(BlockingIOError):
                received.extend(far.recv(65536))
            if condition():
                return
        pytest.fail("it never came to that")

    until(lambda: estimate_of(near).is_steady)
    recollection = Recollection()
    recollection.check(near, 1000, 1000)
    assert recollection.best > 0
    assert estimate_of(near).is_steady, "it has not forgotten"
    recollection.best = estimate_of(near).rate * 100.0
    recollection.check(near, 1000, 1000)
    assert not estimate_of(near).is_steady
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"bbr"
    until(lambda: estimate_of(near).is_steady)
    near.shutdown(socket.SHUT_WR)
    far.setblocking(True)
    while data := far.recv(1 << 20):
        received.extend(data)
    assert len(received) == sent
    assert received == (bytes(range(256)) * (sent // 256 + 1))[:sent]


@pytest.mark.parametrize("name", ALLOWED)
def test_what_begins_anew_is_what_was_there(connection, name):
    near, _ = connection
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    restart_bbr(near)
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == name.encode()


@pytest.mark.parametrize("name", ["reno", "cubic"])
async def test_another_congestion_control_has_nothing_to_forget(start_exit, name):
    if name not in ALLOWED:
        name = DEFAULT
    exit_server = await start_exit(congestion=name)
    leg, _, _, other = await exit_server.pair()
    sock = leg._transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    leg.send(bytes(65_000))
    await other.received(1)
    recollection = Recollection()
    recollection.best = 1e12
    recollection.check(sock, 1000, 1000)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == name.encode()
