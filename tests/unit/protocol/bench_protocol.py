"""Trains and records, as they are made and opened for every WebSocket message."""

from __future__ import annotations

import pytest

from halftunnel_vpn.protocol.datagram import decode_run, encode_run_header
from halftunnel_vpn.protocol.records import Opener, Sealer
from halftunnel_vpn.protocol.wire import PacketType, encode_header, iter_train

SESSION = bytes(range(16))
KEY = bytes(range(32))


@pytest.fixture(params=[1_400, 65_000], ids=["small", "large"])
def train(request):
    """One packet with that much payload."""
    return [encode_header(PacketType.DATA, SESSION, 1, 0, 0, request.param), bytes(request.param)]


def test_encode_a_header(benchmark):
    benchmark(encode_header, PacketType.DATA, SESSION, 7, 1, 2, 1400)


def test_read_a_train_of_64_small_packets(benchmark):
    packet = encode_header(PacketType.DATA, SESSION, 7, 1, 2, 100) + bytes(100)
    assert len(benchmark(iter_train, packet * 64, SESSION)) == 64


def test_seal(benchmark, train):
    benchmark(Sealer(KEY).seal, train)


def test_open(benchmark, train):
    record = Sealer(KEY).seal(train)

    def open_first():
        return Opener(KEY).open(record)

    benchmark(open_first)


def test_read_a_run_of_datagrams(benchmark):
    run = encode_run_header(bytes((198, 51, 100, 7)), 443, segment_size=100) + bytes(1000)
    benchmark(decode_run, run)
