"""Reading many datagrams at once: whatever is expected, what comes out is what was sent."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halftunnel_vpn.server.datagram_batch import (
    FIRST_SIZE,
    MANY,
    MAX_JOINED,
    MAX_LAYOUTS,
    SLOTS,
    UDP_GRO,
    DatagramBatch,
)

UDP_SEGMENT = 103

batch = DatagramBatch()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A sender, and the socket that is read."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reader,
    ):
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        reader.bind(("127.0.0.1", 0))
        sender.connect(reader.getsockname())
        yield sender, reader


def datagrams(sizes) -> list[bytes]:
    return [bytes([number % 251]) * size for number, size in enumerate(sizes)]


def read_all(reader: socket.socket, expected: int, *, join: bool = True) -> tuple[list[bytes], list[int]]:
    """Every datagram that waits, and how many came with each run."""
    got: list[bytes] = []
    counts = []
    while True:
        try:
            runs, _, expected = batch.receive(reader, expected, join=join)
        except BlockingIOError:
            return got, counts
        assert runs
        for address, port, data, segment in runs:
            assert (address, port) == (b"\x7f\0\0\1", port)
            step = segment or max(1, len(data))
            assert len(data) <= MAX_JOINED or not segment
            pieces = [data[at : at + step] for at in range(0, max(1, len(data)), step)]
            assert len(pieces) <= SLOTS
            got += pieces
            counts.append(len(pieces))


EXPECTED = st.sampled_from([1, 64, 507, 1200, FIRST_SIZE, 9000, 65_536])
SIZES = st.lists(st.sampled_from([0, 1, 64, 65, 600, 1200, 1472, 9000]), max_size=60)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=SIZES, expected=EXPECTED, join=st.booleans())
def test_what_is_read_is_what_was_sent(pair, sizes, expected, join):
    sender, reader = pair
    sent = datagrams(sizes)
    for datagram in sent:
        sender.send(datagram)
    got, counts = read_all(reader, expected, join=join)
    assert got == sent
    if not join:
        assert counts == [1] * len(sent)


@pytest.mark.parametrize(("size", "in_a_run"), [(1200, 54), (64, 128), (1472, 44), (9000, 7)])
def test_a_flood_of_one_size_fills_its_runs(pair, size, in_a_run):
    sender, reader = pair
    for datagram in datagrams([size] * 2):
        sender.send(datagram)
    _, _, expected = batch.receive(reader, FIRST_SIZE, join=True)
    sent = datagrams([size] * (in_a_run + 3))
    for datagram in sent:
        sender.send(datagram)
    runs, more, expected = batch.receive(reader, expected, join=True)
    assert more and expected == size
    assert [(data, segment) for _, _, data, segment in runs] == [(b"".join(sent[:in_a_run]), size)]
    assert read_all(reader, expected)[0] == sent[in_a_run:]


@pytest.mark.parametrize("join", [True, False])
@pytest.mark.parametrize("sizes", [[64] * MANY, [*[64] * (MANY - 2), 9, 64], [0] * MANY])
def test_many_are_many_whatever_they_become(pair, sizes, join):
    sender, reader = pair
    for datagram in datagrams(sizes[1:]):
        sender.send(datagram)
    assert not batch.receive(reader, 64, join=join).has_many
    for datagram in datagrams(sizes):
        sender.send(datagram)
    assert batch.receive(reader, 64, join=join).has_many == (join is False or len(set(sizes)) == 1)


def test_a_run_may_end_with_a_shorter_one(pair):
    sender, reader = pair
    sent = datagrams([1200] * 10 + [7])
    for datagram in sent:
        sender.send(datagram)
    runs, more, expected = batch.receive(reader, 1200, join=True)
    assert not more and expected == 1200
    assert [(data, segment) for _, _, data, segment in runs] == [(b"".join(sent), 1200)]


def test_what_the_kernel_has_joined_stays_so_and_single_ones_are_read_many_at_a_time_again(pair):
    sender, reader = pair
    reader.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1200)
    whole = bytes(range(256)) * 150
    sender.send(whole)
    runs, _, expected = batch.receive(reader, FIRST_SIZE, join=True)
    assert [(data, segment) for _, _, data, segment in runs] == [(whole, 1200)]
    assert expected == len(whole)
    sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
    sent = datagrams([1200] * 30)
    for datagram in sent:
        sender.send(datagram)
    got, counts = read_all(reader, expected)
    assert got == sent and len(counts) <= 3


@pytest.mark.parametrize("segment", [0, 1200])
@pytest.mark.parametrize(("family", "here"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_one_is_read_as_many_are(family, here, segment):
    with (
        socket.socket(family, socket.SOCK_DGRAM) as sender,
        socket.socket(family, socket.SOCK_DGRAM) as reader,
    ):
        reader.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        reader.bind((here, 0))
        sender.connect(reader.getsockname())
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, segment)
        whole = bytes(range(256)) * (150 if segment else 5)
        reader.setblocking(False)
        with pytest.raises(BlockingIOError):
            batch.receive_one(reader, family, FIRST_SIZE)
        sender.send(whole)
        many = batch.receive(reader, FIRST_SIZE, join=False)
        sender.send(whole)
        one = batch.receive_one(reader, family, FIRST_SIZE)
        assert one.runs == many.runs and one.expected == many.expected
        assert one.runs[0][2:] == (whole, segment)


def test_tables_for_many_sizes_are_not_kept(pair):
    sender, reader = pair
    for size in range(1, 3 * MAX_LAYOUTS):
        sender.send(bytes(size))
        runs, _, _ = batch.receive(reader, size, join=True)
        assert runs[0][2] == bytes(size)
    assert len(batch._layouts) <= MAX_LAYOUTS
