"""A conversation between the endpoint and a host whose every segment is written down in the test.

The host's segments are made, and the endpoint's are read, by scapy. Sequence numbers count from each side's
SYN, which is 0. Time passes only in ``wait``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.flow.interfaces import Buffer
from halftunnel_vpn.flow.tcp import NewReno, TcpContext, TcpEndpoint, TcpEndpointConfig, Unlimited
from halftunnel_vpn.flow.tcp.lifecycle import TcpLifecycle
from halftunnel_vpn.inet import ip, tcp, vnet
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.timers import Wheel

HOST, SERVER = "10.0.0.2", "192.0.2.80"
HOST_V6, SERVER_V6 = "fd00::2", "2001:db8::80"
HOST_ISN = 0xFFFF_FFF0
SERVER_ISN = 0xFFFF_FF80
WRAP = 1 << 32


class Stream:
    """What the endpoint does with its stream, written down."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent = bytearray()
        self.is_finished = False
        self.fin_follows = False
        self.offender = b""
        self.resets: list[ResetCode] = []
        self.consumed_bytes = 0
        self.on_send: Callable[[], None] = lambda: None
        self.on_finish: Callable[[], None] = lambda: None

    def send(self, data: Buffer, now: float) -> None:
        assert not self.is_finished
        self.room -= len(data)
        assert self.room >= 0
        self.sent += data
        self.on_send()

    def finish(self) -> None:
        assert not self.is_finished
        self.is_finished = True
        self.on_finish()

    def reset(self, code: ResetCode) -> None:
        self.resets.append(code)

    def consumed(self, count: int, now: float) -> None:
        self.consumed_bytes += count


class Conversation:
    """Begins with the host's SYN; ``stream`` is attached, nothing is answered yet."""

    def __init__(
        self,
        *,
        version: int = 4,
        mss: int | None = 1000,
        scale: int | None = 0,
        sack: bool = True,
        room: int = 100_000,
        config: TcpEndpointConfig | None = None,
        congestion: Unlimited | NewReno | None = None,
        refusal_handled: bool | None = None,
    ) -> None:
        self.now = 100.0
        self.wheel = Wheel()
        self.counters = Counters()
        self.closed = 0
        self.refusals: list[ResetCode] = []
        self.dials: list[bool] = []
        self.frames: deque[TCP] = deque()
        self.version = version
        self.stream = Stream(room)
        self.scale = scale or 0
        self.syn_options = [
            *([("MSS", mss)] if mss is not None else []),
            *([("WScale", scale)] if scale is not None else []),
            *([("SAckOK", b"")] if sack else []),
        ]

        self._handles_refusals = bool(refusal_handled)
        syn = self._segment("S", 0, 0, options=self.syn_options)
        packet = ip.parse(memoryview(bytes(self._packet(syn))))
        self.endpoint = TcpEndpoint(
            self._parsed(syn),
            tcp.HeaderTemplate(packet.destination, 80, packet.source, 40000),
            TcpContext(
                config or TcpEndpointConfig(),
                self._write,
                self.wheel,
                self.counters,
                random=lambda count: SERVER_ISN.to_bytes(count, "big"),
            ),
            self,
            congestion=congestion or Unlimited(),
            now=self.now,
        )
        self.endpoint.attach(self.stream)

    # --- the owner of the endpoint (EndpointOwner) -----------------------------------------------

    def endpoint_closed(self, endpoint: TcpLifecycle) -> None:
        self.closed += 1

    def endpoint_refused(self, endpoint: TcpLifecycle, code: ResetCode, now: float) -> bool:
        self.refusals.append(code)
        return self._handles_refusals

    def endpoint_dialed(self, endpoint: TcpLifecycle, is_connected: bool, now: float) -> None:
        self.dials.append(is_connected)

    # --- the host --------------------------------------------------------------------------------

    def host(
        self,
        flags: str,
        seq: int,
        ack: int = 0,
        data: bytes = b"",
        *,
        window: int = 60_000,
        sack: Sequence[tuple[int, int]] = (),
        flush: bool = True,
    ) -> None:
        """The host sends a segment; ``flush`` ends the batch with it."""
        edges = tuple((SERVER_ISN + edge) % WRAP for block in sack for edge in block)
        options = self.syn_options if "S" in flags else [("SAck", edges)] if sack else []
        segment = self._segment(flags, seq, ack, data, window=window, options=options)
        wants_flush = self.endpoint.segment_arrived(self._parsed(segment), self.now)
        if flush and wants_flush:
            self.endpoint.flush(self.now)

    def gets(
        self,
        flags: str,
        seq: int,
        ack: int = 0,
        data: bytes = b"",
        *,
        window: int | None = None,
        sack: Sequence[tuple[int, int]] = (),
    ) -> TCP:
        """The next segment that the host receives."""
        assert self.frames, "nothing was sent"
        segment = self.frames.popleft()
        assert str(segment.flags) == flags
        assert (segment.seq - SERVER_ISN) % WRAP == seq
        if "A" in flags:
            assert (segment.ack - HOST_ISN) % WRAP == ack
        assert bytes(segment.payload) == data
        if window is not None:
            assert segment.window == window
        edges = next((value for name, value in segment.options if name == "SAck"), ())
        assert [(edge - HOST_ISN) % WRAP for edge in edges] == [edge for block in sack for edge in block]
        return segment

    def gets_nothing(self) -> None:
        """The host has received nothing more."""
        assert [segment.summary() for segment in self.frames] == []

    def handshake(self, window: int = 60_000) -> None:
        """The exit connects and the host takes the answer."""
        self.endpoint.opened(self.now)
        self.gets("SA", 0, 1)
        self.host("A", 1, 1, window=window)
        self.gets_nothing()

    # --- stream and time -------------------------------------------------------------------------

    def gives(self, data: bytes) -> None:
        """The stream hands over data for the host."""
        self.endpoint.data_received(memoryview(data), self.now)

    def wait(self, seconds: float) -> None:
        """Let time pass; timers run when they are due."""
        end = self.now + seconds
        while (deadline := self.wheel.next_deadline) is not None and deadline <= end:
            self.now = max(deadline, self.now)
            self.wheel.run(self.now)
        self.now = end

    # --- scapy -----------------------------------------------------------------------------------

    def _segment(
        self,
        flags: str,
        seq: int,
        ack: int,
        data: bytes = b"",
        *,
        window: int = 60_000,
        options: Sequence[tuple[str, object]] = (),
    ) -> TCP:
        segment = TCP(
            sport=40000,
            dport=80,
            flags=flags,
            seq=(HOST_ISN + seq) % WRAP,
            ack=(SERVER_ISN + ack) % WRAP if "A" in flags else 0,
            window=window >> self.scale if "S" not in flags else window,
            options=list(options),
        )
        return segment / Raw(data) if data else segment

    def _packet(self, segment: TCP) -> IP | IPv6:
        if self.version == 4:
            return IP(src=HOST, dst=SERVER) / segment
        return IPv6(src=HOST_V6, dst=SERVER_V6) / segment

    def _parsed(self, segment: TCP) -> tcp.TcpSegment:
        packet = ip.parse(memoryview(bytes(self._packet(segment))))
        return tcp.parse(packet, checksum_trusted=False)

    def _write(self, parts: Sequence[Buffer]) -> None:
        frame = b"".join(parts)
        packet = (IP if self.version == 4 else IPv6)(frame[vnet.VNET_HEADER_LENGTH :])
        assert (packet.dport, packet.sport) == (40000, 80)
        self.frames.append(packet[TCP])


@pytest.fixture(scope="session")
def conversation() -> type[Conversation]:
    """Call it with what the host's SYN shall say."""
    return Conversation
