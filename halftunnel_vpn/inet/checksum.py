"""The Internet checksum (RFC 1071) without a loop over the bytes.

A big-endian number modulo 0xFFFF is the ones' complement sum of its 16-bit words, because
65536 is 1 modulo 65535; so one division of one long integer sums up a whole packet.
"""

from __future__ import annotations

from typing import Final

ONES: Final = 0xFFFF
"""The modulus of ones' complement arithmetic on 16 bits."""


def internet_checksum(*parts: bytes | bytearray | memoryview) -> int:
    """Checksum (0..0xFFFF) of the parts laid end to end; an odd last byte is padded with a zero.

    Over data that already holds its checksum the result is 0 when the checksum is right.
    """
    total = 0
    odd = 0
    for part in parts:
        odd ^= len(part) & 1
        # The last byte of a part that ends at an odd place is the high half of its word.
        total += int.from_bytes(part, "big") << (8 * odd)
    # Only the sum of nothing but zeros is zero; any other multiple of 0xFFFF is "negative zero".
    return -total % ONES if total else ONES


def pseudo_header_sum(
    source: bytes | bytearray | memoryview,
    destination: bytes | bytearray | memoryview,
    protocol: int,
    length: int,
) -> int:
    """Sum (not complemented, 0..0xFFFE) of the pseudo-header of IPv4 (RFC 9293, 3.1) or IPv6 (RFC 8200, 8.1).

    This is what the checksum field holds in a frame with NEEDS_CSUM. ``length`` is that of the transport
    header and its payload in bytes.
    """
    return (int.from_bytes(source, "big") + int.from_bytes(destination, "big") + protocol + length) % ONES
