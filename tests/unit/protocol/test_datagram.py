"""Runs of datagrams and the ICMP errors that answer them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halftunnel_vpn.errors import WireError
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.protocol import datagram
from halftunnel_vpn.protocol.datagram import (
    DataRun,
    ErrorRun,
    decode_run,
    encode_error,
    encode_run_header,
)

u8 = st.integers(0, 255)
u16 = st.integers(0, 65535)
addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
hosts = addresses | st.sampled_from(["example", "stun.example.net", "x" * 63 + ".test"])


def reason_of(attempt: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(WireError) as caught:
        attempt(*arguments)
    return caught.value.reason


@given(hosts, u16, u8, u8, st.binary(max_size=100))
@settings(max_examples=100, deadline=None)
def test_one_datagram_comes_back(
    host: bytes | str, port: int, hop_limit: int, traffic_class: int, data: bytes
) -> None:
    header = encode_run_header(host, port, hop_limit=hop_limit, traffic_class=traffic_class)
    assert len(header) <= datagram.MAX_RUN_HEADER
    run = decode_run(memoryview(header + data))
    assert run == DataRun(host, port, hop_limit, traffic_class, 0, memoryview(data))


@given(hosts, st.integers(1, 1500), st.integers(1, datagram.MAX_RUN_SEGMENTS), st.data())
@settings(max_examples=50, deadline=None)
def test_a_run_of_datagrams_comes_back(
    host: bytes | str, segment_size: int, segments: int, data: st.DataObject
) -> None:
    last = data.draw(st.integers(1, segment_size))
    length = (segments - 1) * segment_size + last
    run = decode_run(encode_run_header(host, 53, segment_size=segment_size) + bytes(length))
    assert isinstance(run, DataRun)
    assert run.segment_size == segment_size
    assert len(run.data) == length


def test_a_run_stands_as_the_specification_says() -> None:
    header = encode_run_header(
        bytes([192, 0, 2, 1]), 3478, hop_limit=64, traffic_class=0xB8, segment_size=1200
    )
    assert header.hex(" ", 1) == "01 04 40 b8 0d 96 04 b0 c0 00 02 01"
    assert encode_run_header(bytes(16), 1).hex() == "0106000000010000" + "00" * 16
    assert encode_run_header("a.test", 1) == b"\x01\x03\0\0\0\x01\0\0\x06a.test"


def test_an_empty_datagram_is_one() -> None:
    run = decode_run(encode_run_header(bytes(4), 9))
    assert isinstance(run, DataRun)
    assert run.data == b""


def test_runs_that_are_too_long_or_hold_nothing_are_refused() -> None:
    segmented = encode_run_header(bytes(4), 9, segment_size=10)
    assert isinstance(decode_run(segmented + bytes(10 * datagram.MAX_RUN_SEGMENTS)), DataRun)
    too_many = segmented + bytes(10 * datagram.MAX_RUN_SEGMENTS + 1)
    assert reason_of(decode_run, too_many) == "datagram-bad-segments"
    assert reason_of(decode_run, segmented) == "datagram-bad-segments"
    one = encode_run_header(bytes(4), 9)
    assert isinstance(decode_run(one + bytes(datagram.MAX_DATAGRAM)), DataRun)
    assert reason_of(decode_run, one + bytes(datagram.MAX_DATAGRAM + 1)) == "datagram-bad-segments"
    huge = encode_run_header(bytes(4), 9, segment_size=datagram.MAX_DATAGRAM + 1)
    assert reason_of(decode_run, huge + b"x") == "datagram-bad-segments"


def test_every_cut_of_a_run_header_is_refused() -> None:
    for host in (bytes(4), bytes(16), "name.test"):
        whole = encode_run_header(host, 1)
        for length in range(len(whole)):
            assert reason_of(decode_run, whole[:length]) == "datagram-truncated"


def test_a_run_with_a_bad_field_is_refused() -> None:
    good = encode_run_header(bytes(4), 1)
    assert reason_of(decode_run, b"\x03" + good[1:]) == "datagram-bad-run"
    assert reason_of(decode_run, good[:1] + b"\x05" + good[2:]) == "datagram-bad-family"
    assert reason_of(decode_run, good[:1] + b"\x00" + good[2:]) == "datagram-bad-family"
    assert reason_of(decode_run, b"\x01\x03\0\0\0\x01\0\0\x03a b") == "datagram-bad-name"
    assert reason_of(encode_run_header, b"", 1) == "datagram-bad-address"
    assert reason_of(encode_run_header, bytes(5), 1) == "datagram-bad-address"
    assert reason_of(encode_run_header, "a..b", 1) == "datagram-bad-name"


@given(st.sampled_from(IcmpErrorKind), st.just(b"") | addresses, hosts, u16, u16)
@settings(max_examples=100, deadline=None)
def test_an_error_comes_back(
    kind: IcmpErrorKind, offender: bytes, host: bytes | str, port: int, mtu: int
) -> None:
    run = ErrorRun(kind, offender, host, port, mtu)
    assert decode_run(memoryview(encode_error(run))) == run


def test_an_error_stands_as_the_specification_says() -> None:
    error = ErrorRun(IcmpErrorKind.PACKET_TOO_BIG, bytes([192, 0, 2, 1]), bytes([198, 51, 100, 2]), 53, 1280)
    assert encode_error(error).hex(" ", 1) == "02 04 07 04 00 35 05 00 c0 00 02 01 c6 33 64 02"


def test_a_bad_error_is_refused() -> None:
    good = encode_error(ErrorRun(IcmpErrorKind.PORT_UNREACHABLE, bytes(4), "name.test", 53))
    for length in range(len(good)):
        assert reason_of(decode_run, good[:length]) == "datagram-truncated"
    assert reason_of(decode_run, good + b"x") == "datagram-trailing-bytes"
    assert reason_of(decode_run, good[:2] + b"\x00" + good[3:]) == "datagram-bad-error"
    assert reason_of(decode_run, good[:2] + b"\x08" + good[3:]) == "datagram-bad-error"
    assert reason_of(decode_run, good[:3] + b"\x03" + good[4:]) == "datagram-bad-family"
    assert reason_of(decode_run, good[:1] + b"\x00" + good[2:]) == "datagram-bad-family"
    nowhere = ErrorRun(IcmpErrorKind.PORT_UNREACHABLE, bytes(4), b"", 53)
    assert reason_of(encode_error, nowhere) == "datagram-bad-address"
    assert reason_of(encode_error, nowhere._replace(offender=b"x")) == "datagram-bad-address"


@given(st.sampled_from([b"\x01", b"\x02", b""]), st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_noise_raises_nothing_but_a_wire_error(sort: bytes, noise: bytes) -> None:
    try:
        decode_run(sort + noise)
    except WireError as error:
        assert error.reason.startswith("datagram-")
