"""A byte stream on one side, a connected socket on the other: at the exit, and in a proxy on the client."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.interfaces import StreamPort
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.timers import Timer
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.relay.meter import Meter
from halftunnel_vpn.transport.relay.socket_watch import ENDED, HUNG_UP, READABLE, WRITABLE, SocketWatch
from halftunnel_vpn.transport.relay.write_backlog import Backlog, keep, let_go

READ_SIZE = 65000
"""Bytes asked of a socket at once: they leave as one packet that fills a record."""

READS_PER_WAKE = 2
"""Reads of one socket before other events get their turn: two pieces."""

PARTS_PER_WRITE = 64
"""Buffers handed to the kernel in one call (far below IOV_MAX)."""

STALLED_FOR = 300.0
"""Seconds for which the other end of a socket may read nothing of the remaining data when both sides have
finished. No stream and no session would end the connection."""

_READING = READABLE | HUNG_UP
_RST_ON_CLOSE = struct.pack("ii", 1, 0)


class TcpRelay:
    """Moves bytes between ``stream`` and the connected socket ``sock``; implements StreamHandler.

    Backpressure: while the stream has no room the socket is not read; bytes that the socket does not take
    wait here, bounded by the stream's window, and are credited to the peer when they are gone.
    """

    __slots__ = (
        "_backlog",
        "_counters",
        "_driver",
        "_events",
        "_fin_received",
        "_fin_sent",
        "_meter",
        "_on_closed",
        "_patience",
        "_reading",
        "_sock",
        "_stream",
        "_waits_to_read",
        "_waits_to_write",
        "_watch",
    )

    def __init__(
        self,
        stream: StreamPort,
        sock: socket.socket,
        driver: Driver,
        watch: SocketWatch,
        counters: Counters,
        on_closed: Callable[[], None],
        meter: Meter | None = None,
    ) -> None:
        self._stream = stream
        self._sock = sock
        self._driver = driver
        self._watch = watch
        self._counters = counters
        self._on_closed = on_closed
        self._meter = meter
        # Whether a gate of the meter is going to call back.
        self._waits_to_read = self._waits_to_write = False
        self._backlog: Backlog = []
        self._patience: Timer | None = None
        self._reading = True
        self._fin_received = False
        self._fin_sent = False
        self._events = _READING
        watch.set(sock, _READING, self._ready)

    # --- StreamHandler ---------------------------------------------------------------------------

    def opened(self, now: float) -> None:
        """Nothing changes: bytes may have been sent before."""

    def refused(self, code: ResetCode, now: float) -> None:
        """The stream is over before it was open."""
        self._close(reset=True)

    def data_received(self, data: memoryview, now: float) -> None:
        """Bytes of the stream for the socket."""
        sent = 0
        if not self._backlog and self._may_write():
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._fail()
                return
            if sent:
                self._written(sent, now)
            if sent == len(data):
                return
            self._wait_for(self._events | WRITABLE)
        keep(self._backlog, data[sent:] if sent else data)

    def finished(self, now: float) -> None:
        """The stream brings nothing more: pass the FIN on once everything before it is gone."""
        self._fin_received = True
        if not self._backlog:
            if self._fin_sent:
                self._close(reset=False)
            else:
                self._shut_down()
        elif self._fin_sent:
            self._wait_for_other_end()

    def aborted(self, code: ResetCode, now: float) -> None:
        """The peer reset the stream, or the session is gone: the other end of the socket sees an RST."""
        self._close(reset=True)

    def room_grew(self, now: float) -> None:
        """The stream has room again."""
        if not self._reading and not self._fin_sent and self._sock.fileno() >= 0:
            self._reading = True
            self._wait_for(self._events | _READING)

    # --- the socket ------------------------------------------------------------------------------

    def _ready(self, sock: socket.socket, events: int) -> None:
        if self._events & WRITABLE and events & (WRITABLE | ENDED):
            self._writable()
        if self._events & READABLE and events & (READABLE | ENDED) and sock.fileno() >= 0:
            self._readable(is_last=events & HUNG_UP != 0)

    def _readable(self, *, is_last: bool) -> None:
        """Read what there is. ``is_last``: the FIN is there as well, and leaves together with it."""
        stream = self._stream
        now = self._driver.clock()
        for _ in range(READS_PER_WAKE):
            room = stream.room
            if not room or not self._may_read():
                self._stop_reading()
                return
            size = room if room < READ_SIZE else READ_SIZE
            try:
                data = self._sock.recv(size)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._fail()
                return
            if not data:
                self._fin_sent = True
                self._stop_reading()
                stream.finish()
                self._close_when_done()
                return
            stream.send(data, now)
            count = len(data)
            meter = self._meter
            if meter is not None:
                meter.received += count
                if meter.down.rate:
                    meter.down.take(count)
            if count < size and not is_last:
                break

    def _writable(self) -> None:
        backlog = self._backlog
        if not self._may_write():
            self._wait_for(self._events & ~WRITABLE)
            return
        is_limited = self._meter is not None and self._meter.up.rate > 0
        try:
            sent = self._sock.sendmsg(backlog[: 1 if is_limited else PARTS_PER_WRITE])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._fail()
            return
        self._written(sent, self._driver.clock())
        let_go(backlog, sent)
        if self._patience is not None:
            self._wait_for_other_end()
        if not backlog:
            self._wait_for(self._events & ~WRITABLE)
            if self._fin_received:
                self._shut_down()

    def _written(self, count: int, now: float) -> None:
        self._stream.consumed(count, now)
        meter = self._meter
        if meter is not None:
            meter.sent += count
            if meter.up.rate:
                meter.up.take(count)

    # --- the rate of the client --------------------------------------------------------------------

    def _may_read(self) -> bool:
        """Return whether the rate allows reading now; if not, go on when it does."""
        meter = self._meter
        if meter is None or not meter.down.rate or meter.down.is_open():
            return True
        if not self._waits_to_read:
            self._waits_to_read = True
            meter.down.wait(self._read_again)
        return False

    def _may_write(self) -> bool:
        """Return whether the rate allows writing now; if not, go on when it does."""
        meter = self._meter
        if meter is None or not meter.up.rate or meter.up.is_open():
            return True
        if not self._waits_to_write:
            self._waits_to_write = True
            meter.up.wait(self._write_again)
        return False

    def _read_again(self) -> None:
        self._waits_to_read = False
        if not self._reading and not self._fin_sent and self._sock.fileno() >= 0:
            self._reading = True
            self._wait_for(self._events | _READING)
            self._readable(is_last=False)

    def _write_again(self) -> None:
        self._waits_to_write = False
        if self._backlog and self._sock.fileno() >= 0:
            self._wait_for(self._events | WRITABLE)
            self._writable()

    # --- the end -----------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._fail()
            return
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self._fin_received and self._fin_sent:
            if self._backlog:
                self._wait_for_other_end()
            else:
                self._close(reset=False)

    def _wait_for_other_end(self) -> None:
        """Only what the other end has not taken yet is left."""
        if self._patience is None:
            self._patience = self._driver.wheel.timer(self._stalled)
        self._patience.arm(self._driver.clock() + STALLED_FOR)

    def _stalled(self, now: float) -> None:
        self._counters.drop("destination-stalled")
        self._close(reset=True)

    def _fail(self) -> None:
        self._stream.reset(ResetCode.CONNECTION_RESET)
        self._close(reset=True)

    def _stop_reading(self) -> None:
        self._reading = False
        self._wait_for(self._events & ~_READING)

    def _wait_for(self, events: int) -> None:
        self._events = events
        if events:
            self._watch.set(self._sock, events, self._ready)
        else:
            self._watch.remove(self._sock)  # a reset would be reported without end

    def _close(self, *, reset: bool) -> None:
        if self._sock.fileno() < 0:
            return
        self._watch.forget(self._sock)
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None  # a closed relay must not wait for the garbage collector
        if self._backlog:
            held = sum(map(len, self._backlog))
            self._stream.consumed(held, self._driver.clock())  # they are released
            self._backlog.clear()
        if reset:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        self._sock.close()
        self._on_closed()
