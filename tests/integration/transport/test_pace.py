"""The pace of a connection, by real sockets: the kernel keeps it, and says what it has not sent."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from halftunnel_vpn.transport.kernel.pace import LEAST_REST, MIN_UNSENT, WAKE_TIME, Pace

RATE = 4_000_000.0


class Transport:
    """All that a pace asks of a transport."""

    def __init__(self, sock):
        self._sock = sock

    def get_extra_info(self, name):
        assert name == "socket"
        return self._sock


@pytest.fixture
def connection():
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        sender = stack.enter_context(socket.create_connection(listener.getsockname()))
        receiver = stack.enter_context(listener.accept()[0])
        yield sender, receiver


def seconds_for(count: int, sender, receiver) -> float:
    """How long so many bytes take."""
    began = time.monotonic()
    thread = threading.Thread(target=sender.sendall, args=(bytes(count),))
    thread.start()
    while count:
        count -= len(receiver.recv(65536))
    thread.join()
    return time.monotonic() - began


def test_the_kernel_keeps_the_pace_and_forgets_it(connection):
    pace = Pace(Transport(connection[0]))
    pace.set(RATE)
    assert seconds_for(2_000_000, *connection) > 0.2
    pace.set(0.0)
    assert pace.rest() == 0.0
    assert seconds_for(100_000, *connection) < 5.0


def test_a_rest_lasts_until_little_is_unsent(connection):
    sender, receiver = connection
    pace = Pace(Transport(sender))
    pace.set(RATE)
    assert pace.rest() == 0.0
    sender.setblocking(False)
    sender.send(bytes(2_000_000))
    rest = pace.rest()
    assert pace.unsent > RATE * WAKE_TIME
    assert LEAST_REST <= rest <= 2_000_000 / RATE
    deadline = time.monotonic() + 20
    while (rest := pace.rest()) and time.monotonic() < deadline:
        receiver.recv(1 << 20)
        time.sleep(rest / 10)
    assert not rest
    assert pace.unsent < max(RATE * WAKE_TIME, MIN_UNSENT)


def test_a_connection_that_is_gone_rests_no_more(connection):
    sender, _ = connection
    pace = Pace(Transport(sender))
    pace.set(RATE)
    sender.close()
    assert pace.rest() == 0.0
    pace.set(2 * RATE)
    assert Pace(Transport(None)).rest() == 0.0
