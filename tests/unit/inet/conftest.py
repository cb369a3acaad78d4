"""What these tests share: scapy beside our parsers, and the kernel's half of a checksum."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet
from scapy.utils import checksum

from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.inet import ip, vnet


def _ip_packet(scapy_packet: Packet | bytes) -> ip.IpPacket:
    return ip.parse(memoryview(bytes(scapy_packet)))


def _refusal(parse: Callable[[], object]) -> str:
    with pytest.raises(PacketError) as caught:
        parse()
    return caught.value.reason


def _as_the_kernel_sends(frame: bytes) -> Packet:
    header = vnet.parse(frame)
    packet = bytearray(frame[vnet.VNET_HEADER_LENGTH :])
    if header.flags & vnet.NEEDS_CSUM:
        at = header.csum_start + header.csum_offset
        packet[at : at + 2] = checksum(bytes(packet[header.csum_start :])).to_bytes(2, "big")
    return IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)


def _recomputed(packet: Packet) -> bytes:
    copy = packet.copy()
    layer: Packet = copy
    while layer:
        for name in ("chksum", "cksum", "len", "plen", "ihl", "dataofs"):
            if name in layer.fields:
                del layer.fields[name]
        layer = layer.payload
    return bytes(copy)


@pytest.fixture(scope="session")
def ip_packet() -> Callable[[Packet | bytes], ip.IpPacket]:
    """A packet made by scapy (or bytes) as our parser sees it."""
    return _ip_packet


@pytest.fixture(scope="session")
def refusal() -> Callable[[Callable[[], object]], str]:
    """The reason of the PacketError that the call must raise."""
    return _refusal


@pytest.fixture(scope="session")
def as_the_kernel_sends() -> Callable[[bytes], Packet]:
    """A frame of ours as scapy sees it after the kernel has filled in the checksum."""
    return _as_the_kernel_sends


@pytest.fixture(scope="session")
def recomputed() -> Callable[[Packet], bytes]:
    """Return the bytes of a packet with every length and checksum computed by scapy."""
    return _recomputed
