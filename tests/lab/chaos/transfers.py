"""One long TCP flow through the tunnel, hashed at both ends, with every pause of its arrival noted."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading
import time
from dataclasses import dataclass
from typing import Final

from lab.chaos.legs import Way
from lab.topology import CLIENT, TARGET, TARGET_ADDRESS, Lab

PIECE: Final = 1 << 18
"""Bytes per call of a socket."""

PATIENCE: Final = 90.0
"""Seconds without a byte after which a flow counts as stuck."""

PAUSE: Final = 0.05
"""Seconds without a byte that are worth noting."""

WORDS: Final = 64
"""Bytes that one end of a conversation says at a time."""

_BLOCK: Final = memoryview(random.Random(77).randbytes(1 << 24))
# No window of it repeats soon, so bytes that are lost, doubled or out of order change the hash.


@dataclass(frozen=True, slots=True)
class Pause:
    """Monotonic seconds between which nothing arrived."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.ended - self.began


class Transfer:
    """A connection from the client to the target that carries ``size`` bytes or more in one direction.

    It goes on until :meth:`finish`, and then ends with FIN. A context manager. Raises OSError when the
    connection cannot be made.
    """

    def __init__(self, lab: Lab, way: Way, size: int) -> None:
        self.way = way
        self.size = size
        self.position = 0
        """Bytes that have arrived."""
        self.pauses: list[Pause] = []
        self.errors: list[str] = []
        """What happened to the flow that must not, a sentence each."""
        self._may_end = threading.Event()
        self._closing = False
        self._sent = self._received = ""
        client, target = self._sockets = connected(lab)
        sender, receiver = self._sockets if way is Way.UP else (target, client)
        self._threads = [
            threading.Thread(target=self._guard, args=(self._send, sender, "sender"), daemon=True),
            threading.Thread(target=self._guard, args=(self._receive, receiver, "receiver"), daemon=True),
        ]

    def __enter__(self) -> Transfer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._closing = True
        self._may_end.set()
        for sock in self._sockets:
            with contextlib.suppress(OSError):  # it is closed or reset already
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in self._sockets:
            sock.close()

    def finish(self) -> None:
        """Let it end once ``size`` bytes have been sent."""
        self._may_end.set()

    @property
    def is_done(self) -> bool:
        """Whether both ends have come to an end, good or bad."""
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def is_whole(self) -> bool:
        """Whether every byte arrived once and in order, and the flow ended with FIN."""
        return self.is_done and not self.errors and self._sent == self._received != ""

    def _guard(self, work: object, sock: socket.socket, end: str) -> None:
        assert callable(work)
        try:
            work(sock)
        except OSError as error:
            if not self._closing:
                what = "stuck" if isinstance(error, TimeoutError) else str(error)
                self.errors.append(f"the {end} of the {self.way.name.lower()} flow: {what}")

    def _send(self, sock: socket.socket) -> None:
        digest = hashlib.sha256()
        sent = 0
        while sent < self.size or not self._may_end.is_set():
            offset = sent // PIECE * 1_000_003 % (len(_BLOCK) - PIECE)
            piece = _BLOCK[offset : offset + PIECE]
            sock.sendall(piece)
            digest.update(piece)
            sent += PIECE
        sock.shutdown(socket.SHUT_WR)
        self._sent = digest.hexdigest()

    def _receive(self, sock: socket.socket) -> None:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(PIECE))
        last = time.monotonic()
        while count := sock.recv_into(buffer):
            now = time.monotonic()
            if now - last > PAUSE:
                self.pauses.append(Pause(last, now))
            last = now
            self.position += count
            digest.update(buffer[:count])
        self._received = digest.hexdigest()


class Conversation:
    """A connection that says a few bytes now and then, like ssh. A context manager; raises OSError."""

    def __init__(self, lab: Lab) -> None:
        self._client, self._target = connected(lab)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *details: object) -> None:
        self._client.close()
        self._target.close()

    def exchange(self) -> float:
        """Say something and hear it back; seconds. OSError when the connection is gone or silent."""
        began = time.monotonic()
        for here, there in ((self._client, self._target), (self._target, self._client)):
            here.sendall(_BLOCK[:WORDS])
            if there.recv(WORDS, socket.MSG_WAITALL) != _BLOCK[:WORDS]:
                raise ConnectionError("something else was heard than said")
        return time.monotonic() - began


def connected(lab: Lab) -> tuple[socket.socket, socket.socket]:
    """Both ends of a new connection from the client to the target. Raises OSError."""
    with lab.inside(TARGET):
        listener = socket.create_server((TARGET_ADDRESS, 0))
    with listener:
        with lab.inside(CLIENT):
            client = socket.socket()
        client.settimeout(PATIENCE)
        listener.settimeout(PATIENCE)
        client.connect(listener.getsockname())
        target, _ = listener.accept()
    target.settimeout(PATIENCE)
    return client, target
