"""How long something takes: pings, and the way from a client's start to the first byte."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import time
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.errors import HostError
from lab.target import SMALL_FILE_NAME, WEB_PORT
from lab.topology import CLIENT, TARGET_ADDRESS, Lab

PING_INTERVAL: Final = 0.01
"""Seconds between pings."""

LINE_PING_INTERVAL: Final = 0.05
"""The same on ordinary lines, of which the slowest would be filled by pings alone."""

LOST: Final = 1000.0
"""Milliseconds after which a ping is lost; a lost one counts as having taken so long."""

LEAST_ANSWERED: Final = 0.5
"""Part of the pings that must come back for their times to mean anything."""

ATTEMPT_INTERVAL: Final = 0.005
"""Seconds between two attempts to reach the target: how exact :func:`first_byte` is."""

MAX_ATTEMPTS: Final = 128
"""Attempts under way at once; the oldest is given up for a new one."""

_REQUEST: Final = f"GET /{SMALL_FILE_NAME} HTTP/1.0\r\n\r\n".encode()


def pings(lab: Lab, seconds: float, *, interval: float = PING_INTERVAL) -> list[float]:
    """Round trips from the client to the target, in milliseconds, lost ones as LOST.

    Raises HostError when most of them are lost.
    """
    count = max(10, round(seconds / interval))
    argv = [
        "ping",
        "-n",
        "-i",
        f"{interval:g}",
        "-c",
        str(count),
        "-W",
        f"{LOST / 1000:g}",
        TARGET_ADDRESS,
    ]
    output = lab.run(CLIENT, argv, check=False, timeout=seconds + 20).stdout
    return with_lost(parse_ping(output), count)


def with_lost(times: list[float], count: int) -> list[float]:
    """The times of all ``count`` pings. HostError when most are lost."""
    if len(times) < count * LEAST_ANSWERED:
        raise HostError(f"{len(times)} of {count} pings came back")
    return [*times, *[LOST] * (count - len(times))]


def parse_ping(output: str) -> list[float]:
    """The times in what ping prints, milliseconds."""
    return [float(found) for found in re.findall(r"\btime=([\d.]+) ms", output)]


def first_byte(lab: Lab, begin: Callable[[], object], *, timeout: float = 30.0) -> float:
    """Seconds from the call of ``begin`` until the client has the first byte of a page of the target.

    A fresh connection is tried every few milliseconds, so no retransmission timer is in the result.
    HostError after ``timeout`` seconds.
    """
    began = time.monotonic()
    begin()
    with lab.inside(CLIENT), contextlib.ExitStack() as stack:
        attempts = stack.enter_context(_Attempts())
        while time.monotonic() - began < timeout:
            attempts.add()
            if attempts.answered():
                return time.monotonic() - began
    raise HostError(f"nothing came from the target within {timeout:.0f} s")


class _Attempts:
    """Connections under way, oldest first."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> _Attempts:
        return self

    def __exit__(self, *details: object) -> None:
        for attempt in self._sockets:
            attempt.close()
        self._selector.close()

    def add(self) -> None:
        if len(self._sockets) >= MAX_ATTEMPTS:
            self._give_up(self._sockets[0])
        attempt = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        attempt.setblocking(False)
        self._sockets.append(attempt)
        self._selector.register(attempt, selectors.EVENT_WRITE)
        try:
            attempt.connect((TARGET_ADDRESS, WEB_PORT))
        except BlockingIOError:
            pass
        except OSError:  # no route yet
            self._give_up(attempt)

    def answered(self) -> bool:
        """Wait a little; whether one of them has received something."""
        until = time.monotonic() + ATTEMPT_INTERVAL
        while (left := until - time.monotonic()) > 0:
            for key, events in self._selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                if self._advance(key.fileobj, events):
                    return True
        return False

    def _advance(self, attempt: socket.socket, events: int) -> bool:
        try:
            if events & selectors.EVENT_WRITE:
                attempt.send(_REQUEST)
                self._selector.modify(attempt, selectors.EVENT_READ)
            elif attempt.recv(1):
                return True
            else:
                self._give_up(attempt)
        except OSError:
            self._give_up(attempt)
        return False

    def _give_up(self, attempt: socket.socket) -> None:
        self._selector.unregister(attempt)
        self._sockets.remove(attempt)
        attempt.close()
