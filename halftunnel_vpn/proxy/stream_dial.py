"""A stream to one destination, from the request of a program until the exit has answered."""

from __future__ import annotations

from collections.abc import Callable

from halftunnel_vpn.errors import SessionError, UpstreamUnavailable, WireError
from halftunnel_vpn.protocol.host_encoding import Host
from halftunnel_vpn.protocol.interfaces import TransferableStream
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind
from halftunnel_vpn.proxy.proxy_context import ProxyContext
from halftunnel_vpn.proxy.refusals import Refusal, refusal_of
from halftunnel_vpn.session.byte_stream import NOBODY

SESSION_WAIT = 10.0
"""Seconds that a request waits for a session before it is refused."""


class StreamDial:
    """Calls ``connected`` with the stream, whose handler must be set then, or ``refused``; never both.

    Implements StreamHandler until the exit has answered.
    """

    __slots__ = ("_connected", "_context", "_patience", "_refused", "_request", "_stream")

    def __init__(
        self,
        context: ProxyContext,
        host: Host,
        port: int,
        *,
        connected: Callable[[TransferableStream, float], None],
        refused: Callable[[Refusal, float], None],
    ) -> None:
        self._context = context
        self._request = OpenRequest(StreamKind.TCP, host, port, 0)
        self._connected = connected
        self._refused = refused
        self._stream: TransferableStream | None = None
        self._patience = context.driver.wheel.timer(self._waited)

    def start(self, now: float) -> None:
        """Open the stream, or wait for a session. ``refused`` may be called at once."""
        try:
            self._stream = self._context.opener.open_stream(self._request, self, now)
        except UpstreamUnavailable:
            self._give_up(Refusal.NO_SESSION, now)
        except WireError:
            self._give_up(Refusal.BAD_NAME, now)
        except SessionError:
            self._context.waiting[self] = None
            if not self._patience.armed:
                self._patience.arm(now + SESSION_WAIT)

    def session_made(self, now: float) -> None:
        """Try again."""
        self._context.waiting.pop(self, None)
        self.start(now)

    def cancel(self) -> None:
        """Cancel it, here and at the exit. No callback follows."""
        self._end()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.handler = NOBODY
            stream.reset(ResetCode.NORMAL)

    def _waited(self, now: float) -> None:
        self._give_up(Refusal.NO_SESSION, now)

    def _give_up(self, refusal: Refusal, now: float) -> None:
        self._end()
        self._stream = None
        self._context.counters.drop(refusal.label)
        self._refused(refusal, now)

    def _end(self) -> None:
        self._patience.cancel()
        self._context.waiting.pop(self, None)

    # --- StreamHandler ---------------------------------------------------------------------------

    def opened(self, now: float) -> None:
        """The destination has connected."""
        stream, self._stream = self._stream, None
        self._end()
        assert stream is not None
        self._connected(stream, now)

    def refused(self, code: ResetCode, now: float) -> None:
        """The exit could not connect."""
        self._give_up(refusal_of(code), now)

    def aborted(self, code: ResetCode, now: float) -> None:
        """The session is gone."""
        self._give_up(refusal_of(code), now)

    def data_received(self, data: memoryview, now: float) -> None:
        """Never called before :meth:`opened`."""

    def finished(self, now: float) -> None:
        """Never called before :meth:`opened`."""

    def room_grew(self, now: float) -> None:
        """Nothing waits to be sent."""
