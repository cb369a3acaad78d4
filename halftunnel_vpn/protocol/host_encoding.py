"""Hosts as they stand in OPEN packets and datagram runs: an address of 4 or 16 bytes, or a name.

A host is announced by a family byte; the host itself is the address, or one byte of length and the name.
"""

from __future__ import annotations

import re
from typing import Final

from halftunnel_vpn.errors import WireError
from halftunnel_vpn.protocol.wire import Buffer

Host = bytes | str
"""4 bytes (IPv4), 16 bytes (IPv6), a name in ASCII as IDNA makes it, or ``b""`` where none is needed."""

FAMILY_NONE: Final = 0
FAMILY_NAME: Final = 3
FAMILY_IPV4: Final = 4
FAMILY_IPV6: Final = 6

MAX_NAME: Final = 253
"""Characters of a name, without a dot at its end (RFC 1035 section 2.3.4)."""

_FAMILY_OF_LENGTH: Final = {0: FAMILY_NONE, 4: FAMILY_IPV4, 16: FAMILY_IPV6}
_LENGTH_OF_FAMILY: Final = {family: length for length, family in _FAMILY_OF_LENGTH.items()}

# The last label must not read as a number: "127.1" and "0x7f.1" are addresses to many a resolver.
_NAME: Final = re.compile(
    r"(?:[a-z0-9_-]{1,63}\.)*(?!(?:[0-9]+|0x[0-9a-f]*)\Z)[a-z0-9_-]{1,63}", re.ASCII | re.IGNORECASE
)


def encode_host(host: Host, where: str) -> tuple[int, bytes]:
    """Family byte and body of ``host``. ``where`` begins the reason of the error ("open", "datagram").

    Raises WireError: WHERE-bad-address, WHERE-bad-name.
    """
    if isinstance(host, str):
        if len(host) > MAX_NAME or not _NAME.fullmatch(host):
            raise WireError(f"{where}-bad-name")
        return FAMILY_NAME, bytes((len(host),)) + host.encode("ascii")
    family = _FAMILY_OF_LENGTH.get(len(host))
    if family is None:
        raise WireError(f"{where}-bad-address", f"{len(host)} bytes")
    return family, bytes(host)


def decode_host(view: Buffer, offset: int, family: int, where: str) -> tuple[Host, int]:
    """Return the host of ``family`` at ``offset`` of ``view``, and the offset behind it.

    Raises WireError: WHERE-bad-family, WHERE-bad-name, WHERE-truncated.
    """
    length = _LENGTH_OF_FAMILY.get(family)
    if length is not None:
        end = offset + length
        address = bytes(view[offset:end])
        if len(address) != length:
            raise WireError(f"{where}-truncated", "inside an address")
        return address, end
    if family != FAMILY_NAME:
        raise WireError(f"{where}-bad-family", f"family {family}")
    if offset >= len(view):
        raise WireError(f"{where}-truncated", "no length of a name")
    end = offset + 1 + view[offset]
    raw = bytes(view[offset + 1 : end])
    if len(raw) != view[offset]:
        raise WireError(f"{where}-truncated", "inside a name")
    name = raw.decode("latin-1")  # every byte decodes; the pattern lets only ASCII pass
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise WireError(f"{where}-bad-name")
    return name, end
