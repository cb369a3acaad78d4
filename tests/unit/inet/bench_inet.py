"""Headers of IP and TCP, as they are read and built for every frame of the TUN device."""

from __future__ import annotations

import os

from halftunnel_vpn.inet import ip, tcp, udp
from halftunnel_vpn.inet.checksum import internet_checksum

HOST, SERVER = bytes((10, 73, 72, 1)), bytes((198, 51, 100, 7))


def test_checksum_of_1400_bytes(benchmark):
    benchmark(internet_checksum, os.urandom(1400))


def test_read_a_large_tcp_segment(benchmark):
    template = tcp.HeaderTemplate(HOST, 40000, SERVER, 443)
    payload = bytes(60_000)
    header = template.build(1, 1, tcp.ACK, 500, len(payload))[10:]
    raw = memoryview(header + payload)

    def read():
        return tcp.parse(ip.parse(raw), checksum_trusted=True)

    assert len(benchmark(read).payload) == len(payload)


def test_build_a_tcp_header(benchmark):
    template = tcp.HeaderTemplate(HOST, 40000, SERVER, 443)
    benchmark(template.build, 1, 1, tcp.ACK, 500, 60_000, 1460)


def test_read_a_small_datagram(benchmark):
    raw = memoryview(udp.build(HOST, 40000, SERVER, 443, 64)[10:] + bytes(64))

    def read():
        return udp.parse(ip.parse(raw), checksum_trusted=True)

    assert len(benchmark(read).payload) == 64
