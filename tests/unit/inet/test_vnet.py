from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.inet import vnet


def test_the_fields_are_little_endian() -> None:
    frame = bytes.fromhex("01 01 3400 b405 1400 1000") + b"an IP packet"
    assert vnet.parse(frame) == vnet.VnetHeader(
        flags=vnet.NEEDS_CSUM,
        gso_type=vnet.GSO_TCPV4,
        hdr_len=52,
        gso_size=1460,
        csum_start=20,
        csum_offset=16,
    )


def test_a_plain_frame_is_ten_zeros_and_trusts_nobody() -> None:
    header = vnet.parse(vnet.PLAIN)
    assert len(vnet.PLAIN) == vnet.VNET_HEADER_LENGTH
    assert header == (0, vnet.GSO_NONE, 0, 0, 0, 0)
    assert not header.checksum_trusted


@pytest.mark.parametrize("flags", [vnet.NEEDS_CSUM, vnet.DATA_VALID, vnet.NEEDS_CSUM | vnet.DATA_VALID])
def test_the_kernel_is_trusted_with_checksums(flags: int) -> None:
    assert vnet.VnetHeader(flags, 0, 0, 0, 0, 0).checksum_trusted


@pytest.mark.parametrize("gso_type", [vnet.GSO_TCPV4, vnet.GSO_TCPV6, vnet.GSO_UDP_L4, 0x81, 0x84])
def test_every_segmentation_that_we_ask_for_is_read(gso_type: int) -> None:
    header = vnet.VnetHeader(vnet.NEEDS_CSUM, gso_type, 40, 1400, 20, 16)
    assert vnet.parse(header.encode()) == header


@pytest.mark.parametrize(
    ("gso_type", "gso_size"), [(2, 1400), (3, 1400), (6, 1400), (0x80, 1400), (0x85, 1400), (1, 0), (5, 0)]
)
def test_any_other_is_refused(
    gso_type: int, gso_size: int, refusal: Callable[[Callable[[], object]], str]
) -> None:
    frame = vnet.VnetHeader(0, gso_type, 40, gso_size, 20, 16).encode()
    assert refusal(lambda: vnet.parse(frame)) == "vnet-bad-gso"


def test_nine_bytes_are_too_short(refusal: Callable[[Callable[[], object]], str]) -> None:
    assert refusal(lambda: vnet.parse(bytes(9))) == "vnet-too-short"


@given(st.binary(max_size=12))
def test_random_bytes_are_read_back_or_refused(frame: bytes) -> None:
    try:
        header = vnet.parse(frame)
    except PacketError:
        return
    assert header.encode() == frame[:10]
