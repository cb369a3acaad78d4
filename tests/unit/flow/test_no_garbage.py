"""What a connection was goes when it is over, without the garbage collector."""

from __future__ import annotations

import gc

from scapy.layers.inet import IP, TCP
from scapy.packet import Raw

from halftunnel_vpn.flow.tcp import TcpEndpoint

ME, THERE = "10.73.72.1", "198.51.100.2"


def segment(flags: str, seq: int, ack: int = 0, text: bytes = b"") -> IP:
    return IP(src=ME, dst=THERE) / TCP(sport=4000, dport=80, flags=flags, seq=seq, ack=ack) / Raw(text)


def endpoints() -> int:
    return sum(isinstance(one, TcpEndpoint) for one in gc.get_objects())


def test_a_connection_that_is_over_leaves_no_cycle_behind(world):
    gc.collect()
    gc.disable()
    try:
        before = endpoints()
        world.host_sends(segment("S", 100))
        world.stream.handler.opened(world.now)
        number = world.host_gets()[TCP].seq + 1
        world.host_sends(segment("PA", 101, number, b"question"))
        world.exit_sends(b"answer")
        world.stream.handler.finished(world.now)
        world.host_sends(segment("FA", 109, number + 7))
        world.streams.opened.clear()
        assert (world.tracker.counts.tcp, endpoints()) == (1, before + 1), "it lingers"
        world.pass_time(60)
        assert (world.tracker.counts.tcp, endpoints()) == (0, before)
    finally:
        gc.enable()
