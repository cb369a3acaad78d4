"""The endpoint's main test: the kernel's own TCP talks to it through a TUN device in a namespace.

The stream behind each endpoint is played here: an echo, a sink that answers with the hash of what it got,
a source. Between the device and the endpoints a link loses, repeats and reorders frames in both directions.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from lab import namespaces

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.flow.interfaces import Buffer
from halftunnel_vpn.flow.tcp import NewReno, TcpContext, TcpEndpoint, TcpEndpointConfig, Unlimited
from halftunnel_vpn.flow.tcp.lifecycle import TcpLifecycle
from halftunnel_vpn.inet import ip, tcp, vnet
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.timers import Wheel

pytestmark = [pytest.mark.root, pytest.mark.alone]

TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
OFFLOADS = 0x01 | 0x02 | 0x04  # checksum, TSO4, TSO6
SERVERS = {socket.AF_INET: "10.99.0.9", socket.AF_INET6: "fd99::9"}
ECHO, SINK, SOURCE, SILENT, REFUSED, RESETTING = range(7001, 7007)
CREDIT = 1 << 20
PIECE = 65486


def open_tun() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(device, TUNSETOFFLOAD, OFFLOADS)
    return device


class Clock:
    """The endpoints' time. It stands nearly still while the loop waits for the processor or computes, so that
    what looks like a loss then is none.
    """

    STEP = 0.01
    """Seconds that pass in a round of the loop that had something to do, at the most."""

    def __init__(self) -> None:
        self.now = self._looked = time.monotonic()

    def advance(self, *, idle: bool) -> None:
        """A round begins; in an ``idle`` one nothing came until the next timer was due."""
        looked = time.monotonic()
        passed = looked - self._looked
        self._looked = looked
        self.now += passed if idle else min(passed, self.STEP)


class Stream:
    """The far end of one connection, in the place of the session."""

    def __init__(self, port: int, size: int, clock: Clock) -> None:
        self.clock = clock
        self.kind = port
        self.left = size
        self.endpoint: TcpEndpoint
        self.room = CREDIT
        self.hash = hashlib.sha256()
        self.pattern = random.Random(port)
        self.resets: list[ResetCode] = []
        self.outstanding = 0

    def opened(self) -> None:
        now = self.clock.now
        if self.kind == REFUSED:
            self.endpoint.refused(ResetCode.REFUSED, now)
            return
        self.endpoint.opened(now)
        self.pump()

    def pump(self) -> None:
        while self.kind == SOURCE and self.left and self.outstanding < CREDIT:
            data = self.pattern.randbytes(min(PIECE, self.left))
            self.hash.update(data)
            self.left -= len(data)
            self.outstanding += len(data)
            self.endpoint.data_received(memoryview(data), self.clock.now)
            if not self.left:
                self.endpoint.finished(self.clock.now)

    def send(self, data: Buffer, now: float) -> None:
        self.hash.update(data)
        if self.kind in (ECHO, SILENT):
            self.room -= len(data)
        if self.kind == ECHO:
            self.endpoint.data_received(memoryview(data), self.clock.now)
        elif self.kind == RESETTING:
            self.endpoint.aborted(ResetCode.CONNECTION_RESET, self.clock.now)

    fin_follows = False
    offender = b""

    def consumed(self, count: int, now: float) -> None:
        self.outstanding -= count
        if self.kind == ECHO:
            self.room += count
            self.endpoint.room_grew(self.clock.now)
        self.pump()

    def finish(self) -> None:
        if self.kind == SINK:
            self.endpoint.data_received(memoryview(self.hash.digest()), self.clock.now)
        if self.kind != SOURCE:
            self.endpoint.finished(self.clock.now)

    def reset(self, code: ResetCode) -> None:
        self.resets.append(code)


@dataclass
class Weather:
    """How a link treats frames: probabilities."""

    loss: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    held: list[tuple[Buffer, ...]] = field(default_factory=list)

    def pass_on(self, frame: tuple[Buffer, ...]) -> list[tuple[Buffer, ...]]:
        """What comes out when ``frame`` goes in."""
        if self.dice.random() < self.loss:
            return []
        frames = [frame]
        if self.dice.random() < self.repeat:
            frames.append(frame)
        if self.dice.random() < self.reorder:
            self.held += frames
            return []
        if self.held and self.dice.random() < 0.5:
            frames += self.late()
        return frames

    def late(self) -> list[tuple[Buffer, ...]]:
        """What has been held back; nothing is for longer than the link is busy."""
        held, self.held = self.held, []
        return held


class Host:
    """A namespace with a TUN device, and the loop that serves it with endpoints."""

    def __init__(self) -> None:
        self.name = f"{namespaces.PREFIX}-{os.getpid()}-tcp"
        namespaces.create(self.name)
        with namespaces.inside(self.name):
            self.device = open_tun()
        for command in (
            "link set dev tun0 mtu 1500 txqueuelen 1000 up",
            "addr add 10.99.0.1/24 dev tun0",
            "addr add fd99::1/64 dev tun0 nodad",
        ):
            namespaces.command(["ip", "-n", self.name, *command.split()])
        self.config = TcpEndpointConfig(time_wait=0.2)
        self.size = 0
        self.congestion: type[Unlimited] | type[NewReno] = Unlimited
        self.inward, self.outward = Weather(), Weather()
        self.counters = Counters()
        self.wheel = Wheel()
        self.clock = Clock()
        self.endpoints: dict[bytes, TcpEndpoint] = {}
        self.streams: list[Stream] = []
        self.calls: list[Callable[[], None]] = []
        self.failure: BaseException | None = None
        self.wake_read, self.wake_write = os.pipe()
        self.is_stopping = False
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def close(self) -> None:
        self.is_stopping = True
        os.write(self.wake_write, b"x")
        self.thread.join()
        for descriptor in (self.device, self.wake_read, self.wake_write):
            os.close(descriptor)
        namespaces.delete(self.name)

    def call(self, function: Callable[[], None]) -> None:
        """Run ``function`` in the loop."""
        self.calls.append(function)
        os.write(self.wake_write, b"x")

    def serve(self) -> None:
        try:
            while not self.is_stopping:
                deadline = self.wheel.next_deadline
                timeout = None if deadline is None else max(deadline - self.clock.now, 0)
                if self.inward.held or self.outward.held:
                    timeout = 0.002
                ready, _, _ = select.select([self.device, self.wake_read], [], [], timeout)
                self.clock.advance(idle=not ready)
                if self.wake_read in ready:
                    os.read(self.wake_read, 1000)
                while self.calls:
                    self.calls.pop(0)()
                frames = [(frame,) for frame in self.read_batch()]
                self.take_in([parts for frame in frames for parts in self.inward.pass_on(frame)])
                if not ready:
                    self.take_in(self.inward.late())
                    self.put_out(self.outward.late())
                self.wheel.run(self.clock.now)
        except BaseException as error:
            self.failure = error

    def take_in(self, frames: Sequence[tuple[Buffer, ...]]) -> None:
        """One batch of frames from the host."""
        touched = {}
        for parts in frames:
            endpoint = self.arrived(bytes(parts[0]))
            if endpoint is not None:
                touched[endpoint] = None
        for endpoint in touched:
            endpoint.flush(self.clock.now)

    def read_batch(self) -> Iterator[bytes]:
        for _ in range(64):
            try:
                yield os.read(self.device, 65600)
            except BlockingIOError:
                return

    def arrived(self, frame: bytes) -> TcpEndpoint | None:
        packet = ip.parse(memoryview(frame)[vnet.VNET_HEADER_LENGTH :])
        if packet.protocol != ip.PROTOCOL_TCP:
            return None
        segment = tcp.parse(packet, checksum_trusted=bool(frame[0] & vnet.CHECKSUM_TRUSTED))
        now = self.clock.now
        ports = segment.source_port.to_bytes(2, "big") + segment.destination_port.to_bytes(2, "big")
        key = packet.source + packet.destination + ports
        endpoint = self.endpoints.get(key)
        if endpoint is not None and segment.flags & tcp.SYN and endpoint.may_be_replaced_by(segment):
            endpoint.abort(now)
            endpoint = None
        if endpoint is None:
            if segment.flags & (tcp.SYN | tcp.ACK) != tcp.SYN:
                return None
            endpoint = self.open(packet, segment, key, now)
            return None
        return endpoint if endpoint.segment_arrived(segment, now) else None

    def open(self, packet: ip.IpPacket, syn: tcp.TcpSegment, key: bytes, now: float) -> TcpEndpoint:
        endpoint = TcpEndpoint(
            syn,
            tcp.HeaderTemplate(packet.destination, syn.destination_port, packet.source, syn.source_port),
            TcpContext(
                self.config,
                self.write,
                self.wheel,
                self.counters,
                random=lambda count: b"\xff\xff\xff\x00",  # wraps early
            ),
            self,
            congestion=self.congestion(),
            now=now,
            key=key,
        )
        self.endpoints[key] = endpoint
        stream = Stream(syn.destination_port, self.size, self.clock)
        stream.endpoint = endpoint
        self.streams.append(stream)
        endpoint.attach(stream)
        self.call(stream.opened)
        return endpoint

    def endpoint_closed(self, endpoint: TcpLifecycle) -> None:
        """The owner of the endpoints (EndpointOwner)."""
        del self.endpoints[endpoint.key]

    def endpoint_refused(self, endpoint: TcpLifecycle, code: ResetCode, now: float) -> bool:
        return False

    def endpoint_dialed(self, endpoint: TcpLifecycle, is_connected: bool, now: float) -> None:
        """Nothing is remembered here."""

    def write(self, parts: Sequence[Buffer]) -> None:
        self.put_out(self.outward.pass_on(tuple(parts)))

    def put_out(self, frames: Sequence[tuple[Buffer, ...]]) -> None:
        for frame in frames:
            os.writev(self.device, frame)

    def connect(self, port: int, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        with namespaces.inside(self.name):
            connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(60)
        try:
            connection.connect((SERVERS[family], port))
        except BaseException:
            connection.close()
            raise
        return connection

    def without_sack(self) -> None:
        """Have the host's kernel do without selective acknowledgements."""
        with namespaces.inside(self.name), open("/proc/sys/net/ipv4/tcp_sack", "w") as setting:
            setting.write("0")


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    try:
        yield host
    finally:
        host.close()
    if host.failure is not None:
        raise host.failure


def read_all(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(1 << 18):
        pieces.append(piece)
    return b"".join(pieces)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that the loop's thread does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def upload(host: Host, size: int, family: socket.AddressFamily = socket.AF_INET) -> None:
    """The answer comes when the host has finished: on a half-closed connection."""
    data = random.Random(size).randbytes(size)
    with host.connect(SINK, family) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == hashlib.sha256(data).digest()


def download(host: Host, size: int, family: socket.AddressFamily = socket.AF_INET) -> None:
    host.size = size
    with host.connect(SOURCE, family) as connection:
        data = read_all(connection)
    assert len(data) == size
    assert hashlib.sha256(data).digest() == host.streams[-1].hash.digest()


def echo(host: Host, size: int, family: socket.AddressFamily = socket.AF_INET) -> None:
    data = random.Random(size).randbytes(size)
    with host.connect(ECHO, family) as connection, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(read_all, connection)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert answer.result() == data


Exchange = Callable[[Host, int], None]
EXCHANGES = pytest.mark.parametrize("exchange", [upload, download, echo])
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])


@FAMILIES
def test_clear_weather_needs_no_retransmission(host: Host, family: socket.AddressFamily) -> None:
    upload(host, 100_000_000, family)
    download(host, 100_000_000, family)
    echo(host, 20_000_000, family)
    until(lambda: not host.endpoints)
    assert host.counters.counted["tcp-retransmitted-frames"] == 0
    # The kernel's own clock goes on when the loop waits for the processor: it may say something twice.
    assert not host.counters.dropped.keys() - {"tcp-out-of-window"}


@EXCHANGES
@pytest.mark.parametrize(
    "weather",
    [(0.02, 0.0, 0.0), (0.0, 0.2, 0.0), (0.0, 0.0, 0.2), (0.02, 0.05, 0.1)],
    ids=["loss", "duplication", "reordering", "all"],
)
def test_bad_weather(host: Host, exchange: Exchange, weather: tuple[float, float, float]) -> None:
    host.inward = Weather(*weather, random.Random(2))
    host.outward = Weather(*weather, random.Random(3))
    exchange(host, 5_000_000)


@EXCHANGES
def test_bad_weather_without_sack(host: Host, exchange: Exchange) -> None:
    host.without_sack()
    host.inward = Weather(0.01, 0.02, 0.05, random.Random(4))
    host.outward = Weather(0.01, 0.02, 0.05, random.Random(5))
    exchange(host, 3_000_000)


@EXCHANGES
def test_bad_weather_with_congestion_control(host: Host, exchange: Exchange) -> None:
    host.congestion = NewReno
    host.outward = Weather(0.01, 0.01, 0.02, random.Random(6))
    exchange(host, 5_000_000)
    if exchange is download:
        assert host.counters.counted["tcp-fast-recoveries"] > 0


def test_many_connections_in_bad_weather(host: Host) -> None:
    host.inward = Weather(0.01, 0.01, 0.02, random.Random(7))
    host.outward = Weather(0.01, 0.01, 0.02, random.Random(8))
    with ThreadPoolExecutor(50) as threads:
        for _ in threads.map(lambda size: echo(host, size), range(1, 60_000, 300)):
            pass
    host.inward, host.outward = Weather(), Weather()
    until(lambda: not host.endpoints)


def test_many_short_connections_that_the_server_closes(host: Host) -> None:
    for _ in range(300):
        download(host, 1000)
    until(lambda: not host.endpoints)
    assert len(host.streams) == 300


def test_a_refusal_is_a_reset(host: Host) -> None:
    with pytest.raises(ConnectionRefusedError):
        host.connect(REFUSED)
    until(lambda: not host.endpoints)


def test_a_reset_of_the_stream_reaches_the_host(host: Host) -> None:
    with host.connect(RESETTING) as connection:
        connection.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    until(lambda: not host.endpoints)


def test_a_reset_of_the_host_reaches_the_stream(host: Host) -> None:
    connection = host.connect(ECHO)
    connection.sendall(b"hello")
    assert connection.recv(5) == b"hello"
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    until(lambda: not host.endpoints)
    assert host.streams[0].resets == [ResetCode.CONNECTION_RESET]


def test_a_host_that_closes_with_unread_data_resets_the_stream(host: Host) -> None:
    host.size = 50_000_000
    connection = host.connect(SOURCE)
    assert len(connection.recv(1000)) == 1000
    connection.close()
    until(lambda: not host.endpoints)
    assert host.streams[0].resets == [ResetCode.CONNECTION_RESET]


def test_a_slow_reader_closes_its_window_and_opens_it_again(host: Host) -> None:
    host.size = 20_000_000
    with host.connect(SOURCE) as connection:
        until(lambda: host.counters.counted["tcp-window-probes"] >= 2)
        data = read_all(connection)
    assert hashlib.sha256(data).digest() == host.streams[0].hash.digest()


def test_a_stream_without_room_stalls_the_host_and_frees_it_again(host: Host) -> None:
    data = random.Random(9).randbytes(3 * CREDIT)
    with host.connect(SILENT) as connection, ThreadPoolExecutor(1) as threads:
        sending = threads.submit(connection.sendall, data)
        until(lambda: host.streams[0].room < 256)
        stream = host.streams[0]
        assert stream.room >= 0

        def make_room() -> None:
            stream.room = 4 * CREDIT
            stream.endpoint.room_grew(host.clock.now)

        host.call(make_room)
        sending.result()
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
    assert stream.hash.digest() == hashlib.sha256(data).digest()
