"""One frame of the host through the flow tracker."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw

from halftunnel_vpn.inet import vnet

HOST, SERVER = "10.73.72.1", "198.51.100.7"


def test_a_datagram(benchmark, world):
    frame = vnet.PLAIN + bytes(IP(src=HOST, dst=SERVER) / UDP(sport=40000, dport=443) / Raw(bytes(64)))
    world.tracker.frame_arrived(frame, world.now)
    stream = world.stream

    def send():
        world.tracker.frame_arrived(frame, world.now)
        world.tracker.flush(world.now)
        stream.sent.clear()

    benchmark(send)


def test_a_ping(benchmark, world):
    frame = vnet.PLAIN + bytes(IP(src=HOST, dst=SERVER) / ICMP(id=7, seq=1) / Raw(bytes(56)))
    world.tracker.frame_arrived(frame, world.now)
    stream = world.stream

    def send():
        world.tracker.frame_arrived(frame, world.now)
        world.tracker.flush(world.now)
        stream.sent.clear()

    benchmark(send)


def test_a_syn_that_is_refused(benchmark, world):
    ports = iter(range(1, 1 << 30))

    def knock():
        port = 1024 + next(ports) % 60_000
        packet = IP(src=HOST, dst=SERVER) / TCP(sport=port, dport=443, flags="S", seq=1)
        return (vnet.PLAIN + bytes(packet),), {}

    def arrive(frame):
        world.tracker.frame_arrived(frame, world.now)
        world.tracker.flush(world.now)
        world.stream.handler.refused(1, world.now)

    benchmark.pedantic(arrive, setup=knock, rounds=500)


def test_datagrams_of_one_flow_in_one_batch(benchmark, world):
    """32 of them, as a busy sender fills the device's queue."""
    header = vnet.VnetHeader(vnet.NEEDS_CSUM, vnet.GSO_NONE, 28, 0, 20, 6).encode()
    frames = [
        header + bytes(IP(src=HOST, dst=SERVER, id=number) / UDP(sport=40000, dport=443) / Raw(bytes(64)))
        for number in range(32)
    ]
    world.tracker.frame_arrived(frames[0], world.now)
    stream = world.stream

    def send():
        for frame in frames:
            world.tracker.frame_arrived(frame, world.now)
        world.tracker.flush(world.now)
        stream.sent.clear()

    benchmark(send)


def _segment(flags: str, seq: int, ack: int = 0, text: bytes = b"", port: int = 40000) -> bytes:
    header = vnet.VnetHeader(vnet.NEEDS_CSUM, vnet.GSO_NONE, 40, 0, 20, 16).encode()
    return header + bytes(
        IP(src=HOST, dst=SERVER) / TCP(sport=port, dport=443, flags=flags, seq=seq, ack=ack) / Raw(text)
    )


def _opened(world, port: int = 40000) -> int:
    """The host and the exit open a connection; the sequence number that the host expects next."""
    world.tracker.frame_arrived(_segment("S", 100, port=port), world.now)
    world.stream.handler.opened(world.now)
    number = world.host_gets()[TCP].seq + 1
    world.tracker.frame_arrived(_segment("A", 101, number, port=port), world.now)
    return number


def test_a_request_and_its_answer(benchmark, world):
    """One exchange on a connection that stays open, TUN to stream and back."""
    ours, theirs = _opened(world), 101
    stream, handler, answer = world.stream, world.stream.handler, memoryview(bytes(1000))

    def write():
        nonlocal ours, theirs
        frame = _segment("PA", theirs % 2**32, ours % 2**32, bytes(100))
        ours, theirs = ours + 1000, theirs + 100
        world.now += 0.001
        stream.sent.clear()
        world.frames.clear()
        return (frame,), {}

    def exchange(frame):
        world.tracker.frame_arrived(frame, world.now)
        world.tracker.flush(world.now)
        handler.data_received(answer, world.now)

    benchmark.pedantic(exchange, setup=write, rounds=3000)
    assert world.frames and stream.sent


def test_a_connection_for_one_request(benchmark, world):
    """From the SYN to the end of TIME-WAIT; the exit ends it with the answer."""
    ports = iter(range(1 << 30))
    number = _opened(world, port=1)  # the same for every connection: random numbers are not random here

    def prepare():
        port = 1024 + next(ports) % 60_000
        world.frames.clear()
        world.streams.opened.clear()
        ended = number + 1001
        said = (("S", 100, 0), ("A", 101, number), ("PA", 101, number), ("A", 102, ended), ("FA", 102, ended))
        frames = [_segment(*one, b"?" if one[0] == "PA" else b"", port=port) for one in said]
        return (frames, memoryview(bytes(1000))), {}

    def live(frames, answer):
        tracker, now = world.tracker, world.now
        for frame in frames[:3]:
            tracker.frame_arrived(frame, now)
            tracker.flush(now)
            if frame is frames[0]:
                handler = world.stream.handler
                handler.opened(now)
        handler.data_received(answer, now)
        handler.finished(now)
        for frame in frames[3:]:
            tracker.frame_arrived(frame, now)
            tracker.flush(now)
        world.pass_time(5)

    benchmark.pedantic(live, setup=prepare, rounds=1000)
    assert world.tracker.counts.tcp == 1
