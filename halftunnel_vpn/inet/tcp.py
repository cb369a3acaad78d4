"""TCP segments (RFC 9293, RFC 7323, RFC 2018): parsing, frames of one flow, sequence arithmetic."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.inet import ip, vnet
from halftunnel_vpn.inet.checksum import ONES, pseudo_header_sum

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20
ECE: Final = 0x40
CWR: Final = 0x80

SEQUENCE_MASK: Final = 0xFFFFFFFF
HEADER_LENGTH: Final = 20
MAX_OPTIONS: Final = 40
"""Bytes of options that the data offset leaves room for."""
MAX_WINDOW_SCALE: Final = 14
"""A larger shift is read as this one (RFC 7323, 2.3)."""
MAX_SACK_BLOCKS: Final = 4

_CHECKSUM_AT: Final = 16
_LAYOUT: Final = struct.Struct(">HHIIBBH")
_pack_v4: Final = struct.Struct(">12sH6sH12sIIHHH2x").pack
_pack_v6: Final = struct.Struct(">14sH38sIIHHH2x").pack
_SACK_BLOCK: Final = struct.Struct(">II")

_OPTION_END: Final = 0
_OPTION_NOP: Final = 1
_OPTION_MSS: Final = 2
_OPTION_WINDOW_SCALE: Final = 3
_OPTION_SACK_PERMITTED: Final = 4
_OPTION_SACK: Final = 5
_FIXED_LENGTHS: Final = {_OPTION_MSS: 4, _OPTION_WINDOW_SCALE: 3, _OPTION_SACK_PERMITTED: 2}

_OPENING: Final = (SYN, SYN | URG, SYN | ACK)
_RUNNING: Final = (ACK, ACK | URG, FIN | ACK, FIN | ACK | URG)
_ENDING: Final = (RST, RST | ACK)
_MEANINGFUL: Final = frozenset(_OPENING + _RUNNING + _ENDING)
_FLAGS_ARE_VALID: Final = bytes([flags & ~(PSH | ECE | CWR) in _MEANINGFUL for flags in range(256)])
"""1 at the index of every flags byte that a sane sender can produce."""


def seq_diff(a: int, b: int) -> int:
    """Return how far ``a`` is ahead of ``b``, signed: -2**31 .. 2**31 - 1 (RFC 9293, 3.4)."""
    return ((a - b + 0x80000000) & SEQUENCE_MASK) - 0x80000000


def seq_lt(a: int, b: int) -> bool:
    """Return whether ``a`` comes before ``b``."""
    return (a - b) & 0x80000000 != 0


@dataclass(slots=True, eq=False, repr=False)
class TcpSegment:
    """One segment, checked.

    ``window`` is the raw 16-bit field. ``mss``, ``window_scale`` and ``sack_permitted`` are read from
    segments with SYN only, ``sack_blocks`` (pairs of left and right edge) from all others.
    """

    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int
    window: int
    mss: int | None
    window_scale: int | None
    sack_permitted: bool
    sack_blocks: tuple[tuple[int, int], ...]
    payload: ip.View

    def __repr__(self) -> str:
        names = "".join(name for bit, name in enumerate("FSRPAUEC") if self.flags >> bit & 1)
        return (
            f"<TcpSegment {self.source_port} -> {self.destination_port} [{names}] seq {self.sequence} "
            f"ack {self.acknowledgement} win {self.window}, {len(self.payload)} bytes>"
        )


def parse(packet: ip.IpPacket, *, checksum_trusted: bool) -> TcpSegment:
    """Read the segment in ``packet``, a whole datagram of protocol 6.

    Raises PacketError: tcp-too-short, tcp-bad-offset, tcp-bad-checksum, tcp-bad-flags, tcp-bad-port,
    tcp-bad-option.
    """
    raw = packet.raw
    start = packet.header_length
    length = len(raw) - start
    if length < HEADER_LENGTH:
        raise PacketError("tcp-too-short", f"{length} bytes")
    source_port, destination_port, sequence, acknowledgement, offset, flags, window = _LAYOUT.unpack_from(
        raw, start
    )
    header_length = offset >> 4 << 2
    if not HEADER_LENGTH <= header_length <= length:
        raise PacketError("tcp-bad-offset", f"{header_length} of {length} bytes")
    if not checksum_trusted:
        words = pseudo_header_sum(packet.source, packet.destination, ip.PROTOCOL_TCP, length)
        data = int.from_bytes(raw[start:], "big") << 8 * (length & 1)
        if (words + data) % ONES:
            raise PacketError("tcp-bad-checksum")
    if not _FLAGS_ARE_VALID[flags]:
        raise PacketError("tcp-bad-flags", hex(flags))
    if not (source_port and destination_port):
        raise PacketError("tcp-bad-port", f"{source_port} -> {destination_port}")
    mss: int | None = None
    window_scale: int | None = None
    sack_permitted = False
    sack_blocks: tuple[tuple[int, int], ...] = ()
    if header_length > HEADER_LENGTH:
        options = _split_options(bytes(raw[start + HEADER_LENGTH : start + header_length]))
        if flags & SYN:
            if _OPTION_MSS in options:
                mss = int.from_bytes(options[_OPTION_MSS], "big")
            if _OPTION_WINDOW_SCALE in options:
                window_scale = min(options[_OPTION_WINDOW_SCALE][0], MAX_WINDOW_SCALE)
            sack_permitted = _OPTION_SACK_PERMITTED in options
        elif _OPTION_SACK in options:
            sack_blocks = tuple(_SACK_BLOCK.iter_unpack(options[_OPTION_SACK]))
    return TcpSegment(
        source_port,
        destination_port,
        sequence,
        acknowledgement,
        flags,
        window,
        mss,
        window_scale,
        sack_permitted,
        sack_blocks,
        raw[start + header_length :],
    )


def _split_options(options: bytes) -> dict[int, bytes]:
    """Return the options by kind, without kind and length; of several of one kind the last counts."""
    found: dict[int, bytes] = {}
    at, end = 0, len(options)
    while at < end:
        kind = options[at]
        if kind == _OPTION_NOP:
            at += 1
            continue
        if kind == _OPTION_END:
            break
        length = options[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end or _FIXED_LENGTHS.get(kind, length) != length:
            raise PacketError("tcp-bad-option", f"kind {kind}, length {length}")
        if kind == _OPTION_SACK and (length == 2 or (length - 2) % _SACK_BLOCK.size):
            raise PacketError("tcp-bad-option", f"SACK of {length} bytes")
        found[kind] = options[at + 2 : at + length]
        at += length
    return found


def encode_options(
    mss: int | None = None,
    window_scale: int | None = None,
    sack_permitted: bool = False,
    sack_blocks: Sequence[tuple[int, int]] = (),
) -> bytes:
    """The options padded with NOPs to a multiple of 4; of ``sack_blocks`` as many as there is room for."""
    encoded = b""
    if mss is not None:
        encoded += struct.pack(">BBH", _OPTION_MSS, 4, mss)
    if sack_permitted:
        encoded += bytes((_OPTION_NOP, _OPTION_NOP, _OPTION_SACK_PERMITTED, 2))
    if window_scale is not None:
        encoded += bytes((_OPTION_NOP, _OPTION_WINDOW_SCALE, 3, window_scale))
    if sack_blocks:
        blocks = sack_blocks[: min(MAX_SACK_BLOCKS, (MAX_OPTIONS - len(encoded) - 4) // _SACK_BLOCK.size)]
        encoded += bytes((_OPTION_NOP, _OPTION_NOP, _OPTION_SACK, 2 + _SACK_BLOCK.size * len(blocks)))
        encoded += b"".join([_SACK_BLOCK.pack(left, right) for left, right in blocks])
    return encoded


class HeaderTemplate:
    """Makes the headers of the frames of one flow, from ``source`` to ``destination``.

    Addresses are 4 or 16 bytes, both alike (ValueError otherwise). The checksum is left to the kernel: the
    field holds the sum of the pseudo-header, the vnet header has NEEDS_CSUM.
    """

    __slots__ = (
        "_checksum",
        "_gso_prefix",
        "_gso_shape",
        "_ip_length",
        "_middle",
        "_prefix",
        "_pseudo",
        "_tail",
    )

    def __init__(
        self,
        source: bytes,
        source_port: int,
        destination: bytes,
        destination_port: int,
        *,
        hop_limit: int = ip.DEFAULT_HOP_LIMIT,
    ) -> None:
        header = ip.build(source, destination, ip.PROTOCOL_TCP, 0, hop_limit=hop_limit)
        ports = struct.pack(">HH", source_port, destination_port)
        self._ip_length = len(header)
        self._pseudo = pseudo_header_sum(source, destination, ip.PROTOCOL_TCP, 0)
        if self._ip_length == ip.IPV4_HEADER_LENGTH:
            # The header checksum of an empty packet, ready to have the real length taken off.
            self._checksum = int.from_bytes(header[10:12], "big") + ip.IPV4_HEADER_LENGTH
            self._prefix, self._middle, self._tail = header[:2], header[4:10], header[12:] + ports
        else:
            self._checksum = 0
            self._prefix, self._middle, self._tail = header[:4], b"", header[6:] + ports
        self._gso_shape = (0, 0)
        self._gso_prefix = b""
        self._prefix = _vnet_header(self._ip_length, 0, 0) + self._prefix

    def build(
        self,
        sequence: int,
        acknowledgement: int,
        flags: int,
        window: int,
        payload_length: int,
        gso_size: int = 0,
        options: bytes = b"",
    ) -> bytes:
        """vnet, IP and TCP header of one frame; the payload follows as it is.

        ``window`` is the raw 16-bit field, ``options`` comes from :func:`encode_options`. With
        0 < ``gso_size`` < ``payload_length`` the kernel cuts segments of ``gso_size`` bytes of payload.
        struct.error when a number does not fit its field: nothing is masked here.
        """
        tcp_length = HEADER_LENGTH + payload_length
        place = 0x5000 | flags
        if options:
            tcp_length += len(options)
            place += len(options) << 10
        prefix = self._prefix
        if payload_length > gso_size > 0:
            if self._gso_shape != (gso_size, len(options)):
                self._reshape(gso_size, len(options))
            prefix = self._gso_prefix
        pseudo = (self._pseudo + tcp_length) % ONES
        if self._middle:
            total = tcp_length + ip.IPV4_HEADER_LENGTH
            header = _pack_v4(
                prefix, total, self._middle, (self._checksum - total) % ONES, self._tail,
                sequence, acknowledgement, place, window, pseudo,
            )  # fmt: skip
        else:
            header = _pack_v6(
                prefix, tcp_length, self._tail, sequence, acknowledgement, place, window, pseudo
            )
        return header + options if options else header

    @property
    def length(self) -> int:
        """Bytes of the IP and TCP headers, without options."""
        return self._ip_length + HEADER_LENGTH

    def _reshape(self, gso_size: int, options_length: int) -> None:
        """Build the prefix of segmented frames again; a flow rarely changes its segment size."""
        self._gso_shape = (gso_size, options_length)
        self._gso_prefix = (
            _vnet_header(self._ip_length, gso_size, options_length) + self._prefix[vnet.VNET_HEADER_LENGTH :]
        )


@lru_cache(maxsize=64)  # nearly all flows have one of two
def _vnet_header(ip_length: int, gso_size: int, options_length: int) -> bytes:
    segmentation = vnet.GSO_TCPV4 if ip_length == ip.IPV4_HEADER_LENGTH else vnet.GSO_TCPV6
    return vnet.VnetHeader(
        flags=vnet.NEEDS_CSUM,
        gso_type=segmentation if gso_size else vnet.GSO_NONE,
        hdr_len=ip_length + HEADER_LENGTH + options_length,
        gso_size=gso_size,
        csum_start=ip_length,
        csum_offset=_CHECKSUM_AT,
    ).encode()
