"""Both directions stream over a link that loses, repeats and reorders, against a model of a host.

The model is TCP as simple as it can be: one timer, go-back-N, a dictionary for what came too early, a reader
that sleeps now and then. The link cuts frames into segments, as a kernel does that forwards them.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.flow.interfaces import Buffer
from halftunnel_vpn.flow.tcp import NewReno, TcpContext, TcpEndpoint, TcpEndpointConfig, Unlimited
from halftunnel_vpn.flow.tcp.lifecycle import TcpLifecycle
from halftunnel_vpn.inet import ip, tcp, vnet
from halftunnel_vpn.inet.tcp import ACK, FIN, PSH, RST, SYN, TcpSegment, seq_diff
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.timers import Wheel

HOST, SERVER = b"\x0a\0\0\2", b"\xc0\0\2\x50"
MSS = 1000
CAPACITY = 30_000
TIMEOUT = 0.4
MASK = 0xFFFF_FFFF


class KeepsClosed:
    """The owner of an endpoint (EndpointOwner)."""

    def __init__(self, closed: list[TcpLifecycle]) -> None:
        self._closed = closed

    def endpoint_closed(self, endpoint: TcpLifecycle) -> None:
        self._closed.append(endpoint)

    def endpoint_refused(self, endpoint: TcpLifecycle, code: ResetCode, now: float) -> bool:
        return False

    def endpoint_dialed(self, endpoint: TcpLifecycle, is_connected: bool, now: float) -> None:
        assert is_connected


@dataclass(frozen=True)
class Weather:
    loss: float
    repeat: float
    jitter: float


class World:
    """Virtual time, and everything that happens in it."""

    def __init__(self, seed: int, weather: Weather) -> None:
        self.now = 0.0
        self.dice = random.Random(seed)
        self.weather = weather
        self.wheel = Wheel()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = 0

    def at(self, delay: float, action: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.events, (self.now + delay, self.order, action))

    def carry(self, deliver: Callable[[], None]) -> None:
        for _ in range(2 if self.dice.random() < self.weather.repeat else 1):
            if self.dice.random() >= self.weather.loss:
                self.at(0.001 + self.dice.random() * self.weather.jitter, deliver)

    def step(self) -> bool:
        deadline = self.wheel.next_deadline
        if deadline is not None and (not self.events or deadline <= self.events[0][0]):
            self.now = max(self.now, deadline)
            self.wheel.run(self.now)
            return True
        if not self.events:
            return False
        self.now, _, action = heapq.heappop(self.events)
        action()
        return True


class ModelHost:
    """The active side; ``data`` is what it sends, ``received`` what its reader has read."""

    def __init__(
        self, world: World, isn: int, data: bytes, sack: bool, deliver: Callable[[TcpSegment], None]
    ):
        self.world, self.isn, self.data, self.sack, self.deliver = world, isn, data, sack, deliver
        self.una = self.nxt = 0  # counted from the SYN, which is 0
        self.window = 0
        self.peer_isn: int | None = None
        self.expected = 0
        self.early: dict[int, bytes] = {}
        self.buffer = bytearray()
        self.received = bytearray()
        self.peer_fin: int | None = None
        self.is_reset = False
        self.end = 1 + len(data)  # where the FIN is
        self.timer = 0
        self.transmit()
        world.at(0.05, self.read)

    @property
    def is_done(self) -> bool:
        return self.una > self.end and self.peer_fin is not None and self.expected > self.peer_fin

    def send(self, flags: int, number: int, payload: bytes = b"") -> None:
        is_syn = bool(flags & SYN)
        blocks: list[tuple[int, int]] = []
        if self.sack and self.early and not is_syn:
            for start in sorted(self.early):
                end = start + len(self.early[start])
                if blocks and start <= blocks[-1][1]:
                    blocks[-1] = (blocks[-1][0], max(end, blocks[-1][1]))
                else:
                    blocks.append((start, end))
        base = self.peer_isn or 0
        segment = TcpSegment(
            40000,
            80,
            (self.isn + number) & MASK,
            (base + self.expected) & MASK if flags & ACK else 0,
            flags,
            max(CAPACITY - len(self.buffer), 0) if is_syn else max(CAPACITY - len(self.buffer), 0) >> 2,
            MSS if is_syn else None,
            2 if is_syn else None,
            self.sack and is_syn,
            tuple(((base + start) & MASK, (base + end) & MASK) for start, end in blocks[-4:]),
            memoryview(payload),
        )
        self.world.carry(lambda: self.deliver(segment))

    def transmit(self) -> None:
        """Send what the window allows and has not been sent since the timer ran out last."""
        if self.peer_isn is None:
            self.send(SYN, 0)
            self.nxt = 1
        else:
            limit = self.una + max(min(self.window, CAPACITY), 1)  # one byte or the FIN as a probe
            while self.nxt < self.end and self.nxt < limit:
                size = min(MSS, limit - self.nxt, self.end - self.nxt)
                self.send(ACK | PSH, self.nxt, self.data[self.nxt - 1 : self.nxt - 1 + size])
                self.nxt += size
            if self.nxt == self.end and self.nxt < limit:
                self.send(ACK | FIN, self.end)
                self.nxt += 1
        self.timer += 1
        if self.una < self.nxt:
            serial = self.timer
            self.world.at(TIMEOUT, lambda: self.timed_out(serial))

    def timed_out(self, serial: int) -> None:
        if serial == self.timer and not self.is_reset:
            self.nxt = self.una
            self.transmit()

    def arrived(self, segment: TcpSegment) -> None:
        if segment.flags & RST:
            self.is_reset = True
        if self.is_reset:
            return
        if segment.flags & SYN:
            if self.peer_isn is None:
                self.peer_isn = segment.sequence
                self.expected = 1
            self.acknowledged(seq_diff(segment.acknowledgement, self.isn), segment.window)
            self.send(ACK, self.una)
            return
        if self.peer_isn is None:
            return
        number = self.expected + seq_diff(segment.sequence, (self.peer_isn + self.expected) & MASK)
        self.text_arrived(number, bytes(segment.payload), bool(segment.flags & FIN))
        una = self.una + seq_diff(segment.acknowledgement, (self.isn + self.una) & MASK)
        self.acknowledged(una, segment.window << 8)
        if segment.payload or segment.flags & FIN or number != self.expected:
            self.send(ACK, max(self.nxt, self.una))

    def text_arrived(self, number: int, payload: bytes, fin: bool) -> None:
        space = CAPACITY - len(self.buffer)
        if fin and number + len(payload) <= self.expected + space:
            self.peer_fin = number + len(payload)
        payload = payload[: max(self.expected + space - number, 0)]
        if payload and number + len(payload) > self.expected:
            kept = self.early.get(number, b"")
            self.early[number] = max(kept, payload, key=len)
        for start in sorted(self.early):
            if start <= self.expected:
                fresh = self.early.pop(start)[self.expected - start :]
                self.buffer += fresh
                self.expected += len(fresh)
        if self.expected == self.peer_fin:
            self.expected += 1

    def acknowledged(self, una: int, window: int) -> None:
        assert una <= self.end + 1
        if una < self.una:
            return
        self.window = window
        if una > self.una or (self.nxt < self.end + 1 and window):
            self.una = una
            self.nxt = max(self.nxt, una)
            self.transmit()

    def read(self) -> None:
        """The application: at times it takes everything, at times it sleeps."""
        was_full = CAPACITY - len(self.buffer) < MSS
        self.received += self.buffer
        self.buffer.clear()
        if was_full and not self.is_reset:
            self.send(ACK, max(self.nxt, self.una))
        if not self.is_done or len(self.received) < self.expected - 2:
            self.world.at(self.world.dice.choice((0.01, 0.1, 1.0)), self.read)


class ModelStream:
    """The tunnel: takes data as room allows, and gives room back later; hands over ``data`` in pieces."""

    def __init__(self, world: World, data: bytes) -> None:
        self.world, self.data = world, data
        self.endpoint: TcpEndpoint
        self.room = 40_000
        self.received = bytearray()
        self.is_finished = False
        self.resets: list[ResetCode] = []
        self.consumed_bytes = 0

    def opened(self) -> None:
        self.endpoint.opened(self.world.now)
        self.give(0)

    def give(self, at: int) -> None:
        size = self.world.dice.choice((1, 700, 20_000, 65_000))
        self.endpoint.data_received(memoryview(self.data)[at : at + size], self.world.now)
        if at + size < len(self.data):
            self.world.at(self.world.dice.choice((0, 0, 0.02)), lambda: self.give(at + size))
        else:
            self.endpoint.finished(self.world.now)

    def send(self, data: Buffer, now: float) -> None:
        assert not self.is_finished
        self.received += data
        size = len(data)
        self.room -= size
        assert self.room >= 0
        self.world.at(self.world.dice.choice((0.001, 0.1, 0.9)), lambda: self.make_room(size))

    def make_room(self, size: int) -> None:
        self.room += size
        self.endpoint.room_grew(self.world.now)

    def finish(self) -> None:
        self.is_finished = True

    def reset(self, code: ResetCode) -> None:
        self.resets.append(code)

    fin_follows = False
    offender = b""

    def consumed(self, count: int, now: float) -> None:
        self.consumed_bytes += count


def segments_of(frame: bytes) -> list[TcpSegment]:
    """What the kernel makes of a frame: segments of the size that the vnet header names."""
    header = vnet.parse(frame)
    whole = tcp.parse(ip.parse(memoryview(frame)[vnet.VNET_HEADER_LENGTH :]), checksum_trusted=True)
    size = header.gso_size or len(whole.payload) or 1
    assert size <= MSS or not header.gso_size
    pieces = []
    for at in range(0, max(len(whole.payload), 1), size):
        is_last = at + size >= len(whole.payload)
        flags = whole.flags if is_last else whole.flags & ~(FIN | PSH)
        pieces.append(
            TcpSegment(
                80,
                40000,
                (whole.sequence + at) & MASK,
                whole.acknowledgement,
                flags,
                whole.window,
                whole.mss,
                whole.window_scale,
                whole.sack_permitted,
                whole.sack_blocks,
                whole.payload[at : at + size],
            )
        )
    return pieces


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    weather=st.builds(
        Weather,
        loss=st.sampled_from((0.0, 0.02, 0.15)),
        repeat=st.sampled_from((0.0, 0.1)),
        jitter=st.sampled_from((0.0, 0.002, 0.05)),
    ),
    up=st.integers(0, 80_000),
    down=st.integers(0, 150_000),
    sack=st.booleans(),
    is_local=st.booleans(),
    isns=st.tuples(st.sampled_from((0, 1, MASK - 5000, MASK)), st.sampled_from((0, 5, MASK - 9000, MASK))),
)
def test_everything_arrives_once_and_in_order(
    seed: int, weather: Weather, up: int, down: int, sack: bool, is_local: bool, isns: tuple[int, int]
) -> None:
    world = World(seed, weather)
    upload, download = world.dice.randbytes(up), world.dice.randbytes(down)
    stream = ModelStream(world, download)
    counters = Counters()
    closed: list[TcpLifecycle] = []

    def write(parts: Sequence[Buffer]) -> None:
        for segment in segments_of(b"".join(parts)):
            world.carry(lambda segment=segment: host.arrived(segment))

    def arrived(segment: TcpSegment) -> None:
        if segment.flags & SYN and not hasattr(stream, "endpoint"):
            stream.endpoint = endpoint = TcpEndpoint(
                segment,
                tcp.HeaderTemplate(SERVER, 80, HOST, 40000),
                TcpContext(
                    TcpEndpointConfig(syn_ack_retries=30),
                    write,
                    world.wheel,
                    counters,
                    random=lambda count: isns[1].to_bytes(count, "big"),
                ),
                KeepsClosed(closed),
                congestion=Unlimited() if is_local else NewReno(),
                now=world.now,
            )
            endpoint.attach(stream)
            world.at(0.05, stream.opened)
        elif not closed and stream.endpoint.segment_arrived(segment, world.now):
            world.at(0, lambda: stream.endpoint.flush(world.now))

    host = ModelHost(world, isns[0], upload, sack, arrived)
    while not (host.is_done and closed):
        assert world.step(), "nothing is left to happen"
        assert world.now < 3000, "too slow"
        assert not host.is_reset and not stream.resets
    while len(host.received) < down:
        assert world.step()
    assert bytes(stream.received) == upload
    assert bytes(host.received) == download
    assert stream.is_finished
    assert stream.consumed_bytes == down
    if weather == Weather(0.0, 0.0, 0.0):
        assert counters.counted["tcp-fast-recoveries"] == 0
