"""Datagram sockets under both event loops, with ICMP errors among what they have to say."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest

from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.server import icmp_errors
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.relay.socket_watch import FAILED, READABLE, SocketWatch


@pytest.fixture
def udp() -> Iterator[Callable[[], socket.socket]]:
    """Makes UDP sockets on loopback that want to hear of ICMP errors."""
    made: list[socket.socket] = []

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        made.append(sock)
        sock.bind(("127.0.0.1", 0))
        icmp_errors.enable(sock)
        return sock

    yield make
    for sock in made:
        sock.close()


@pytest.fixture
def closed_port(udp) -> tuple[str, int]:
    sock = udp()
    address = sock.getsockname()
    sock.close()
    return address


class Ear:
    """Writes down what a socket says."""

    def __init__(self) -> None:
        self.heard: list[bytes | int] = []

    def ready(self, sock: socket.socket, events: int) -> None:
        if events & FAILED:
            self.heard += [error.kind for error in icmp_errors.read(sock)]
        try:
            while True:
                self.heard.append(sock.recv(100))
        except BlockingIOError:
            pass


async def test_a_socket_that_is_closed_at_once_may_be_forgotten_before(udp, watch):
    """Its number may be another socket's at once, and that is watched like any other."""
    first = udp()
    watch.set(first, READABLE, Ear().ready)
    number = first.fileno()
    watch.forget(first)
    first.close()
    second = udp()
    assert second.fileno() == number
    arrived = asyncio.get_running_loop().create_future()
    watch.set(second, READABLE, lambda sock, events: arrived.set_result(sock.recv(100)))
    second.sendto(b"hello", second.getsockname())
    async with asyncio.timeout(30):
        assert await arrived == b"hello"
    watch.remove(second)
    watch.forget(second)  # harmless


@pytest.fixture
async def watch() -> SocketWatch:
    return SocketWatch(Driver(asyncio.get_running_loop()))


async def test_datagrams_are_heard_of(watch, udp, until):
    sock, other, ear = udp(), udp(), Ear()
    watch.set(sock, READABLE, ear.ready)
    other.sendto(b"one", sock.getsockname())
    await until(lambda: ear.heard == [b"one"])
    other.sendto(b"two", sock.getsockname())
    await until(lambda: ear.heard == [b"one", b"two"])
    watch.remove(sock)


async def test_an_error_makes_nobody_deaf(watch, udp, closed_port, until):
    """libuv by itself would never look at the socket again."""
    sock, other, ear = udp(), udp(), Ear()
    watch.set(sock, READABLE, ear.ready)
    for number in range(1, 4):
        sock.sendto(b"anybody?", closed_port)
        await until(lambda: len(ear.heard) == 2 * number - 1)  # noqa: B023
        other.sendto(b"data", sock.getsockname())
        await until(lambda: len(ear.heard) == 2 * number)  # noqa: B023
    assert ear.heard == [IcmpErrorKind.PORT_UNREACHABLE, b"data"] * 3
    watch.remove(sock)


async def test_an_error_that_somebody_else_has_read_is_no_harm(watch, udp, closed_port, until):
    sock, other, ear = udp(), udp(), Ear()
    watch.set(sock, READABLE, ear.ready)
    sock.sendto(b"anybody?", closed_port)
    assert len(icmp_errors.read(sock)) == 1  # before the loop has had its turn
    other.sendto(b"data", sock.getsockname())
    await until(lambda: ear.heard == [b"data"])
    watch.remove(sock)


async def test_a_socket_may_go_while_its_turn_is_waited_for(watch, udp, until):
    """Two are ready at once, and the first one to be served removes both."""
    socks, other = [udp(), udp()], udp()
    served: list[socket.socket] = []

    def ready(sock: socket.socket, events: int) -> None:
        served.append(sock)
        for each in socks:
            watch.remove(each)

    for sock in socks:
        watch.set(sock, READABLE, ready)
        other.sendto(b"data", sock.getsockname())
    await until(lambda: served)
    await asyncio.sleep(0)
    assert len(served) == 1


async def test_it_begins_anew_after_the_last_socket_has_gone(watch, udp, until):
    other = udp()
    for _ in range(3):
        sock, ear = udp(), Ear()
        watch.set(sock, READABLE, ear.ready)
        other.sendto(b"data", sock.getsockname())
        await until(lambda: ear.heard)  # noqa: B023
        watch.remove(sock)
        watch.remove(sock)
        other.sendto(b"unheard", sock.getsockname())
        await asyncio.sleep(0.01)
        assert ear.heard == [b"data"]


async def test_a_callback_that_raises_stops_no_other_and_its_socket_rests(udp, watch, until):
    faults = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: faults.append(context["exception"])
    )

    def broken(sock, events):
        raise RuntimeError("broken")

    ears = [Ear() for _ in range(3)]
    socks = [udp() for _ in range(5)]
    for sock, ready in zip(socks, [broken, *(ear.ready for ear in ears), broken], strict=True):
        watch.set(sock, READABLE, ready)
    sender = udp()
    for sock in socks:
        sender.sendto(b"hello", sock.getsockname())
    await until(lambda: all(ear.heard for ear in ears) and len(faults) == 2)
    for sock in socks:
        sender.sendto(b"again", sock.getsockname())
    await until(lambda: all(len(ear.heard) == 2 for ear in ears))
    assert [str(fault) for fault in faults] == ["broken"] * 2
    for sock in socks:
        watch.remove(sock)
