"""Dials on loopback: happy eyeballs, limits, the queue, time-outs and changes of mind."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import resource
import socket
import time

import pytest

from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.server import dialing, icmp_errors
from halftunnel_vpn.server.dialing import Dialer, DialLimits, reset_code
from halftunnel_vpn.transport.happy_eyeballs import ATTEMPT_DELAY, MAX_ADDRESSES

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

ONE, TWO, SIX = (ipaddress.ip_address(text).packed for text in ("127.0.0.1", "127.0.0.2", "::1"))
NOBODY = ipaddress.ip_address("255.255.255.255").packed
"""No TCP connection can be made to it: the kernel says so at once."""


class Outcome:
    """What became of one dial."""

    def __init__(self, watch):
        self.watch = watch
        self.done = asyncio.get_running_loop().create_future()
        self.began = time.monotonic()

    def connected(self, sock):
        peer = sock.getpeername()[0]
        assert not sock.getblocking()
        self.watch.forget(sock)
        sock.close()
        self.done.set_result(peer)

    def failed(self, code):
        self.done.set_result(code)

    @property
    def is_pending(self):
        return not self.done.done()

    async def __call__(self):
        async with asyncio.timeout(30):
            return await self.done

    async def seconds(self):
        await self()
        return time.monotonic() - self.began


@pytest.fixture
def start(driver, counters):
    """Starts dials of one Dialer; ``limits`` count for the first call."""
    dialers = []

    def dial(addresses, port, *, client="client", **limits):
        if not dialers:
            dialers.append(Dialer(driver, DialLimits(**limits), counters))
        outcome = Outcome(dialers[0].watch)
        outcome.dial = dialers[0].dial(client, addresses, port, outcome.connected, outcome.failed)
        assert outcome.is_pending, "no callback before dial() has returned"
        return outcome

    return dial


def port_of(sock):
    return sock.getsockname()[1]


@pytest.fixture
def closed_port(free_port):
    """A port that refuses."""
    return free_port()


# --- one address -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("address", "text"), [(ONE, "127.0.0.1"), (SIX, "::1")])
async def test_a_destination_that_listens(start, listening, counters, address, text):
    outcome = start([address], port_of(listening(text)))
    assert await outcome() == text
    assert counters.counted["dials"] == 1


async def test_a_connected_socket_sends_small_writes_at_once(start, listening, driver, counters):
    seen = asyncio.get_running_loop().create_future()
    dialer = Dialer(driver, DialLimits(), counters)

    def connected(sock):
        dialer.watch.remove(sock)
        seen.set_result(sock)

    dialer.dial("x", [ONE], port_of(listening()), connected, seen.set_exception)
    with await seen as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_destination_that_refuses(start, closed_port):
    assert await start([ONE], closed_port)() is ResetCode.REFUSED


async def test_a_destination_that_cannot_be_reached(start):
    assert await start([NOBODY], 80)() is ResetCode.NETWORK_UNREACHABLE


async def test_a_destination_that_never_answers(start, listening):
    outcome = start([ONE], port_of(listening(full=True)), timeout=0.2)
    assert await outcome() is ResetCode.TIMED_OUT
    assert 0.19 < await outcome.seconds()  # and no longer than the outcome is waited for


async def test_no_address_at_all(start):
    assert await start([], 80)() is ResetCode.HOST_UNREACHABLE


@pytest.mark.parametrize("left", [0, 1])
async def test_a_process_without_file_descriptors(start, driver, listening, left):
    port = port_of(listening())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = [socket.socket() for _ in range(left + 1)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare[-1].fileno(), hard))
    for sock in spare[:left]:
        sock.close()  # enough for the socket, and not for what watches it
    try:
        assert await start([ONE, SIX], port)() is ResetCode.LIMIT
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for sock in spare:
            sock.close()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ECONNREFUSED, ResetCode.REFUSED),
        (errno.ECONNRESET, ResetCode.REFUSED),
        (errno.EHOSTUNREACH, ResetCode.HOST_UNREACHABLE),
        (errno.ENETUNREACH, ResetCode.NETWORK_UNREACHABLE),
        (errno.EAFNOSUPPORT, ResetCode.NETWORK_UNREACHABLE),
        (errno.ETIMEDOUT, ResetCode.TIMED_OUT),
        (errno.EPERM, ResetCode.DENIED),
        (errno.EMFILE, ResetCode.LIMIT),
        (errno.EINVAL, ResetCode.HOST_UNREACHABLE),
        (None, ResetCode.HOST_UNREACHABLE),
    ],
)
async def test_what_errors_mean_to_the_client(number, code):
    assert reset_code(number) is code


# --- several addresses (RFC 8305) --------------------------------------------------------------------


async def test_a_first_address_that_refuses_costs_nothing(start, listening, monkeypatch):
    monkeypatch.setattr(dialing, "ATTEMPT_DELAY", 60.0)  # nobody waits so long for the outcome
    outcome = start([SIX, TWO], port_of(listening("127.0.0.2")))
    assert await outcome() == "127.0.0.2"


async def test_a_first_address_that_never_answers_costs_one_delay(start, listening):
    silent = listening(full=True)
    listening("127.0.0.2", port_of(silent))
    outcome = start([ONE, TWO], port_of(silent))
    assert await outcome() == "127.0.0.2"
    assert ATTEMPT_DELAY * 0.9 < await outcome.seconds()  # and no longer than the outcome is waited for


async def test_a_slow_first_address_is_not_given_up_for_a_second_that_refuses(start, listening):
    """The first has its whole time although the second fails at once."""
    silent = listening(full=True)
    outcome = start([ONE, TWO], port_of(silent), timeout=30)
    await asyncio.sleep(ATTEMPT_DELAY + 0.1)
    assert outcome.is_pending
    # The queue has room for one, and what had filled it asks again as well, maybe first.
    loop = asyncio.get_running_loop()
    loop.add_reader(silent, lambda: silent.accept()[0].close())
    assert await outcome() == "127.0.0.1"
    loop.remove_reader(silent)


async def test_when_all_fail_the_last_failure_is_told(start, closed_port):
    assert await start([NOBODY, ONE], closed_port)() is ResetCode.REFUSED
    assert await start([ONE, NOBODY], closed_port)() is ResetCode.NETWORK_UNREACHABLE


async def test_all_silent_ends_in_one_time_out(start, listening):
    silent = listening(full=True)
    listening("127.0.0.2", port_of(silent), full=True)
    assert await start([ONE, TWO], port_of(silent), timeout=0.5)() is ResetCode.TIMED_OUT


async def test_only_so_many_addresses_are_tried(start, listening):
    port = port_of(listening())
    assert await start([NOBODY] * MAX_ADDRESSES + [ONE], port)() is ResetCode.NETWORK_UNREACHABLE
    assert await start([NOBODY] * (MAX_ADDRESSES - 1) + [ONE], port)() == "127.0.0.1"


# --- limits ------------------------------------------------------------------------------------------


async def test_what_is_beyond_the_limit_of_a_client_waits_for_its_turn(start, listening, counters):
    silent, port = listening(full=True), port_of(listening())
    slow = [start([ONE], port_of(silent), per_client=2, timeout=1.0) for _ in range(2)]
    waiting = start([ONE], port)
    other = start([ONE], port, client="another client")
    assert await other() == "127.0.0.1", "nobody else waits for it"
    assert waiting.is_pending and counters.counted["dials"] == 3
    assert await waiting() == "127.0.0.1"
    assert not slow[0].is_pending
    assert [await outcome() for outcome in slow] == [ResetCode.TIMED_OUT] * 2


async def test_the_limit_in_all_counts_every_client(start, listening, counters):
    silent, port = listening(full=True), port_of(listening())
    slow = [start([ONE], port_of(silent), client=name, total=2, timeout=1.0) for name in "ab"]
    waiting = start([ONE], port, client="c")
    await asyncio.sleep(0.1)
    assert waiting.is_pending and counters.counted["dials"] == 2
    assert await waiting() == "127.0.0.1"
    assert [await outcome() for outcome in slow] == [ResetCode.TIMED_OUT] * 2


async def test_a_client_at_its_limit_does_not_hold_up_those_behind_it(start, listening):
    silent, port = listening(full=True), port_of(listening())
    first = start([ONE], port_of(silent), client="greedy", per_client=1, total=2, timeout=30)
    second = start([ONE], port_of(silent), client="brief", timeout=30)
    greedy = start([ONE], port, client="greedy")
    modest = start([ONE], port, client="modest")
    second.dial.cancel()
    assert await modest() == "127.0.0.1"
    assert greedy.is_pending
    first.dial.cancel()
    assert await greedy() == "127.0.0.1"


async def test_a_full_queue_refuses(start, listening, counters):
    silent = listening(full=True)
    running = start([ONE], port_of(silent), total=1, waiting=2, timeout=30)
    waiting = [start([ONE], port_of(silent)) for _ in range(2)]
    assert await start([ONE], port_of(silent))() is ResetCode.LIMIT
    assert counters.dropped == {"dial-queue-full": 1}
    for outcome in (running, *waiting):
        outcome.dial.cancel()


async def test_one_client_cannot_fill_the_queue_for_all(start, listening, counters):
    silent, port = listening(full=True), port_of(listening())
    limits = {"per_client": 1, "total": 1, "waiting_per_client": 5, "waiting": 8, "timeout": 30}
    running = start([ONE], port_of(silent), client="greedy", **limits)
    greedy = [start([ONE], port_of(silent), client="greedy") for _ in range(9)]
    assert [await outcome() for outcome in greedy[5:]] == [ResetCode.LIMIT] * 4
    modest = start([ONE], port, client="modest")
    assert modest.is_pending and counters.dropped == {"dial-queue-full": 4}
    running.dial.cancel()  # the greedy one waited first, so it has the first turn
    greedy[0].dial.cancel()
    assert await modest() == "127.0.0.1", "the second turn is another client's"
    for outcome in greedy[1:5]:
        outcome.dial.cancel()


async def test_those_who_gave_up_waiting_make_room_in_the_queue(start, listening, counters):
    silent, port = listening(full=True), port_of(listening())
    running = start([ONE], port_of(silent), total=1, waiting=3, timeout=30)
    for outcome in [start([ONE], port) for _ in range(3)]:
        outcome.dial.cancel()
    waiting = start([ONE], port)
    running.dial.cancel()
    assert await waiting() == "127.0.0.1"
    assert not counters.dropped


async def test_many_dials_pass_a_narrow_gate_one_after_the_other(start, listening, counters):
    port = port_of(listening())
    outcomes = [start([ONE], port, total=3, per_client=2, client=number % 4) for number in range(40)]
    assert [await outcome() for outcome in outcomes] == ["127.0.0.1"] * 40
    assert counters.counted["dials"] == 40 and not counters.dropped


# --- changes of mind ---------------------------------------------------------------------------------


async def test_a_cancelled_dial_says_nothing_and_gives_its_place_back(start, listening):
    silent, port = listening(full=True), port_of(listening())
    cancelled = start([ONE, TWO], port_of(silent), total=1, timeout=1.0)
    waiting = start([ONE], port)
    cancelled.dial.cancel()
    cancelled.dial.cancel()
    assert await waiting() == "127.0.0.1"
    await asyncio.sleep(1.1)
    assert cancelled.is_pending, "neither then nor when its time is up"


async def test_a_dial_cancelled_while_it_waits_is_never_begun(start, listening, counters):
    silent, port = listening(full=True), port_of(listening())
    running = start([ONE], port_of(silent), total=1, timeout=30)
    waiting, behind = start([ONE], port), start([ONE], port)
    waiting.dial.cancel()
    running.dial.cancel()
    assert await behind() == "127.0.0.1"
    assert waiting.is_pending and counters.counted["dials"] == 2


async def test_a_dial_cancelled_before_its_refusal_is_told_hears_nothing(start, listening):
    silent = listening(full=True)
    running = start([ONE], port_of(silent), total=1, waiting=0, timeout=30)
    refused = start([ONE], port_of(silent))
    refused.dial.cancel()
    await asyncio.sleep(0.05)
    assert refused.is_pending
    running.dial.cancel()


async def test_a_connection_is_probed_after_a_minute_and_keeps_urgent_bytes_in_their_place(driver, counters):
    with socket.create_server(("127.0.0.1", 0)) as server:
        dialer = Dialer(driver, DialLimits(), counters)
        done = asyncio.get_running_loop().create_future()
        dialer.dial("client", [ONE], server.getsockname()[1], done.set_result, done.set_exception)
        async with asyncio.timeout(30):
            sock = await done
        dialer.watch.forget(sock)
        peer, _ = server.accept()
        with sock, peer:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            values = [
                sock.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            ]
            assert values == [60, 60, 10]
            peer.sendall(b"abc")
            peer.send(b"!", socket.MSG_OOB)
            peer.sendall(b"def")
            peer.shutdown(socket.SHUT_WR)
            received = b""
            async with asyncio.timeout(30):
                while data := await asyncio.get_running_loop().sock_recv(sock, 100):
                    received += data
            assert received == b"abc!def"


async def test_the_hop_limit_of_a_dial_ends_with_the_connection(driver, counters):
    """What follows the SYN has the system's, and no router's error ends it."""
    for address, level, option, queue in (
        (ONE, socket.IPPROTO_IP, socket.IP_TTL, icmp_errors.IP_RECVERR),
        (SIX, socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, icmp_errors.IPV6_RECVERR),
    ):
        family = socket.AF_INET if address == ONE else socket.AF_INET6
        with (
            socket.create_server(("127.0.0.1" if address == ONE else "::1", 0), family=family) as server,
            socket.socket(family) as fresh,
        ):
            dialer = Dialer(driver, DialLimits(), counters)
            done = asyncio.get_running_loop().create_future()
            port = server.getsockname()[1]
            dialer.dial("client", [address], port, done.set_result, done.set_exception, hop_limit=3)
            async with asyncio.timeout(30):
                sock = await done
            dialer.watch.forget(sock)
            with sock:
                assert sock.getsockopt(level, option) == fresh.getsockopt(level, option)
                assert sock.getsockopt(level, queue) == 0
