"""The virtio_net_hdr in front of every frame of a TUN device opened with IFF_VNET_HDR.

Ten bytes, little endian here (virtio 1.2, section 5.1.6): flags, gso_type, hdr_len, gso_size,
csum_start, csum_offset. It contains whether the transport checksum still has to be filled in, and into
segments of which size a frame larger than the MTU is to be cut.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from halftunnel_vpn.errors import PacketError

VNET_HEADER_LENGTH: Final = 10

NEEDS_CSUM: Final = 1
"""Flag: the checksum field at csum_start + csum_offset holds the pseudo-header sum only."""
DATA_VALID: Final = 2
"""Flag: the kernel has verified the transport checksum."""
CHECKSUM_TRUSTED: Final = NEEDS_CSUM | DATA_VALID
"""``frame[0] & CHECKSUM_TRUSTED``: the checksum of this frame needs no check."""

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80
"""Bit that may stand beside GSO_TCPV4 and GSO_TCPV6: the first segment carries CWR."""

PLAIN: Final = bytes(VNET_HEADER_LENGTH)
"""The header of a frame that is one finished IP packet."""

_LAYOUT: Final = struct.Struct("<BBHHHH")
_GSO_TYPES: Final = frozenset({GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, GSO_TCPV4 | GSO_ECN, GSO_TCPV6 | GSO_ECN})


class VnetHeader(NamedTuple):
    """The six fields; lengths and offsets in bytes from the start of the IP packet."""

    flags: int
    gso_type: int
    hdr_len: int
    gso_size: int
    csum_start: int
    csum_offset: int

    @property
    def checksum_trusted(self) -> bool:
        """Whether the transport checksum needs no check."""
        return self.flags & CHECKSUM_TRUSTED != 0

    def encode(self) -> bytes:
        """Return the ten bytes."""
        return _LAYOUT.pack(*self)


def parse(frame: bytes | bytearray | memoryview) -> VnetHeader:
    """Read the header at the start of ``frame``.

    Raises PacketError: vnet-too-short, vnet-bad-gso (a segmentation that was never asked for, or one
    without a size).
    """
    if len(frame) < VNET_HEADER_LENGTH:
        raise PacketError("vnet-too-short")
    header = VnetHeader._make(_LAYOUT.unpack_from(frame))
    if header.gso_type and (header.gso_type not in _GSO_TYPES or not header.gso_size):
        raise PacketError("vnet-bad-gso", f"type {header.gso_type}, size {header.gso_size}")
    return header
