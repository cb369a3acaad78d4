from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import checksum as scapy_checksum

from halftunnel_vpn.inet.checksum import internet_checksum, pseudo_header_sum


def test_the_example_of_rfc_1071() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


@pytest.mark.parametrize("data", [b"", b"\0", bytes(40), b"\xff\xff", b"\xff\xff" * 20, b"\xff\xfe\0\x01"])
def test_both_zeros_of_ones_complement_come_out_as_scapy_has_them(data: bytes) -> None:
    assert internet_checksum(data) == scapy_checksum(data)


@given(st.binary(max_size=200))
def test_agrees_with_scapy(data: bytes) -> None:
    assert internet_checksum(memoryview(data)) == scapy_checksum(data)


@given(st.lists(st.binary(max_size=9), max_size=6))
def test_parts_of_any_length_count_as_if_they_were_joined(parts: list[bytes]) -> None:
    assert internet_checksum(*parts) == internet_checksum(b"".join(parts))


@given(st.binary(max_size=100).filter(lambda data: len(data) % 2 == 0))
def test_data_with_its_checksum_sums_up_to_zero(data: bytes) -> None:
    checksum = internet_checksum(data)
    assert internet_checksum(data, checksum.to_bytes(2, "big")) == 0


def test_a_large_packet() -> None:
    data = bytes(range(256)) * 255 + b"odd"
    assert internet_checksum(data) == scapy_checksum(data)


@given(st.sampled_from([4, 16]), st.data(), st.integers(0, 255), st.integers(0, 65535))
def test_the_pseudo_header_is_summed_up_like_its_bytes(
    size: int, data: st.DataObject, protocol: int, length: int
) -> None:
    source, destination = data.draw(st.binary(min_size=size, max_size=size)), bytes([10] * size)
    if size == 4:
        pseudo_header = source + destination + bytes((0, protocol)) + length.to_bytes(2, "big")
    else:
        pseudo_header = source + destination + length.to_bytes(4, "big") + bytes((0, 0, 0, protocol))
    assert 0xFFFF - pseudo_header_sum(source, destination, protocol, length) == scapy_checksum(pseudo_header)
