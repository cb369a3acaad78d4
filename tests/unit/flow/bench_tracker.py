"""One frame of the host through the flow tracker."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw

from halftunnel_vpn.packet import vnet

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
