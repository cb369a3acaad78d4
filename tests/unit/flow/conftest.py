"""A flow tracker and the world around it: a host with packets of scapy, streams, a resolver."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet
from scapy.utils import checksum

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import SessionExpired, UpstreamUnavailable
from halftunnel_vpn.flow.flow_config import FlowConfig
from halftunnel_vpn.flow.flow_context import FlowContext
from halftunnel_vpn.flow.interfaces import Buffer, DatagramHandler, DnsOutcome, StreamHandler
from halftunnel_vpn.flow.tracker import FlowTracker
from halftunnel_vpn.inet import vnet
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode
from halftunnel_vpn.timers import Wheel

OWN_RESOLVER = bytes((10, 73, 72, 53))


class Stream:
    """A byte stream or a datagram stream that keeps what it is given."""

    def __init__(self, request: OpenRequest, handler: StreamHandler | DatagramHandler) -> None:
        self.request = request
        self.handler = handler
        self.sent: list[bytes] = []
        self.room = 1 << 20
        self.has_enough = False
        self.credited = 0
        self.is_finished = False
        self.fin_follows = False
        self.offender = b""
        self.is_closed = False
        self.reset_code: ResetCode | None = None

    def send(self, *parts: Buffer | float) -> None:
        data = (
            part for part in parts if not isinstance(part, float)
        )  # a byte stream is called with the time
        self.sent.append(b"".join(map(bytes, data)))

    def finish(self) -> None:
        self.is_finished = True

    def reset(self, code: ResetCode) -> None:
        self.reset_code = code

    def consumed(self, count: int, now: float) -> None:
        self.credited += count

    def close(self) -> None:
        self.is_closed = True


class Streams:
    """Opens streams as a session does, or refuses to while there is none."""

    def __init__(self) -> None:
        self.opened: list[Stream] = []
        self.is_there = True
        self.room = 1 << 20
        self.is_lost = False

    def open_stream(self, request: OpenRequest, handler: StreamHandler, now: float) -> Stream:
        return self._open(request, handler)

    def open_datagrams(self, request: OpenRequest, handler: DatagramHandler, now: float) -> Stream:
        return self._open(request, handler)

    def _open(self, request: OpenRequest, handler: StreamHandler | DatagramHandler) -> Stream:
        if self.is_lost:
            raise UpstreamUnavailable("there has been no upstream leg for a while", reason="direction-lost")
        if not self.is_there:
            raise SessionExpired("there is no session now")
        request.encode()  # as the session does, with its errors
        self.opened.append(Stream(request, handler))
        self.opened[-1].room = self.room
        return self.opened[-1]


class Resolver:
    """Keeps the queries with their replies; ``names`` are the fake addresses."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, Callable[[bytes], None], bool]] = []
        self.names: dict[bytes, str] = {}
        self.is_deaf = False
        self.clients: list[bytes] = []

    def query(
        self,
        message: bytes,
        reply: Callable[[bytes], None],
        *,
        stream: bool,
        client: bytes,
        names_server: bool,
    ) -> DnsOutcome:
        """What begins with "server" is for the named server; what begins with "now" is answered at once."""
        if names_server and message.startswith(b"server"):
            return DnsOutcome.FOR_SERVER
        self.asked.append((message, reply, stream))
        self.clients.append(client)
        if message.startswith(b"now"):
            reply(message * 100)
        return DnsOutcome.IGNORED if self.is_deaf else DnsOutcome.ANSWERED

    def name_of(self, address: bytes) -> str | None:
        return self.names.get(address)

    def address_of(self, name: str, version: int) -> bytes | None:
        for address, known in self.names.items():
            if known == name and len(address) == (4 if version == 4 else 16):
                return address
        return None


class World:
    """What is around one tracker. ``now`` is the time at which things happen."""

    def __init__(self, config: FlowConfig, *, segments: bool = True) -> None:
        self.now = 1000.0
        self.counters = Counters()
        self.streams = Streams()
        self.dns = Resolver()
        self.wheel = Wheel()
        self.frames: list[bytes] = []
        self.gave_way_after: list[int] = []
        self.tracker = FlowTracker(
            FlowContext(
                write=self._write,
                segments=segments,
                dns=self.dns,
                wheel=self.wheel,
                counters=self.counters,
                clock=lambda: self.now,
                random=lambda count: bytes(range(1, count + 1)),
                give_way=self._give_way,
            ),
            self.streams,
            config,
        )

    def _give_way(self) -> None:
        self.gave_way_after.append(len(self.frames))

    def host_sends(self, packet: Packet | bytes, vnet_header: bytes = vnet.PLAIN) -> None:
        """One packet of the host reaches the device."""
        self.tracker.frame_arrived(vnet_header + bytes(packet), self.now)
        self.tracker.flush(self.now)

    def host_gets(self) -> Packet:
        """The next packet that the host was given, after the kernel has filled in its checksum."""
        frame = self.frames.pop(0)
        header = vnet.parse(frame)
        packet = bytearray(frame[vnet.VNET_HEADER_LENGTH :])
        if header.flags & vnet.NEEDS_CSUM:
            at = header.csum_start + header.csum_offset
            packet[at : at + 2] = checksum(bytes(packet[header.csum_start :])).to_bytes(2, "big")
        return IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)

    def exit_sends(self, data: bytes, stream: int = -1) -> None:
        """A run, or bytes, of a stream arrive from the exit."""
        handler = self.streams.opened[stream].handler
        if hasattr(handler, "run_received"):
            handler.run_received(memoryview(data), self.now)
        else:
            handler.data_received(memoryview(data), self.now)

    def pass_time(self, seconds: float) -> None:
        """Timers fire that are due by then."""
        self.now += seconds
        self.wheel.run(self.now)

    @property
    def stream(self) -> Stream:
        """The one that was opened last."""
        return self.streams.opened[-1]

    @property
    def dropped(self) -> dict[str, int]:
        return dict(self.counters.dropped)

    def _write(self, parts: Sequence[Buffer]) -> None:
        self.frames.append(b"".join(map(bytes, parts)))


@pytest.fixture(scope="session")
def new_world() -> Callable[..., World]:
    """A tracker with the given bounds; its own addresses are 10.73.72.1 and fd48::1."""

    def make(*, segments: bool = True, **config: object) -> World:
        own = (bytes((10, 73, 72, 1)), b"\xfd\x48" + bytes(13) + b"\x01")
        return World(FlowConfig(addresses=own, resolvers=(OWN_RESOLVER,), **config), segments=segments)

    return make


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    """A tracker with every bound as it comes."""
    return new_world()
