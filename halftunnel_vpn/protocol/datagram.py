"""The payload of a DATA packet on a UDP or ICMP stream: one *run* (docs/PROTOCOL.md, "Datagram runs").

A data run is one or more datagrams of one size to or from one place, as UDP segmentation offload makes and
takes them. Upstream the place is the destination, downstream the source. An error run reports an
ICMP error that a datagram of the client met behind the exit.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from halftunnel_vpn.errors import WireError
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.protocol.host_encoding import (
    FAMILY_IPV4,
    FAMILY_IPV6,
    FAMILY_NAME,
    FAMILY_NONE,
    Host,
    decode_host,
    encode_host,
)
from halftunnel_vpn.protocol.records import MAX_TRAIN_PAYLOAD
from halftunnel_vpn.protocol.wire import Buffer, View

RUN_DATA: Final = 1
RUN_ERROR: Final = 2

MAX_RUN_SEGMENTS: Final = 128
"""Datagrams in one run, as Linux bounds one segmented UDP send (UDP_MAX_SEGMENTS)."""

MAX_DATAGRAM: Final = 65507
"""Bytes of the longest datagram: 65535 less the headers of IPv4 and UDP."""


class DataRun(NamedTuple):
    """Datagrams of one size, the last of which may be shorter; ``data`` points into the decoded buffer.

    ``segment_size`` 0 means one datagram of all of ``data``. ``port`` is the UDP port, or the sequence number
    of an ICMP echo. ``hop_limit`` 0 means not stated.
    """

    address: Host
    port: int
    hop_limit: int
    traffic_class: int
    segment_size: int
    data: View


class ErrorRun(NamedTuple):
    """An ICMP error: ``offender`` reports ``kind`` for a datagram to ``address`` and ``port``.

    ``offender`` is 4 or 16 bytes, or ``b""`` where the exit was not told. ``mtu`` is the one of a
    PACKET_TOO_BIG, otherwise 0. ``address`` and ``port`` are as the client sent them.
    """

    kind: IcmpErrorKind
    offender: bytes
    address: Host
    port: int
    mtu: int = 0


_IPV4_RUN: Final = struct.Struct(">BBBBHH4s")
_IPV6_RUN: Final = struct.Struct(">BBBBHH16s")
_RUN: Final = struct.Struct(">BBBBHH")  # kind, family, hop limit, traffic class, port, segment size
_ERROR: Final = struct.Struct(">BBBBHH")  # kind, family, error, offender's family, port, mtu
_ERROR_KINDS: Final = {int(kind): kind for kind in IcmpErrorKind}

MAX_RUN_HEADER: Final = _RUN.size + 1 + 253
"""Bytes of the longest header of a run: one with a name."""

MAX_RUN_DATA: Final = MAX_TRAIN_PAYLOAD - MAX_RUN_HEADER
"""Bytes of data that fit one run whatever its header: more than half of MAX_DATAGRAM."""


def encode_run_header(
    address: Host,
    port: int,
    *,
    hop_limit: int = 0,
    traffic_class: int = 0,
    segment_size: int = 0,
) -> bytes:
    """What goes before the data of a data run. Raises WireError: datagram-bad-address, datagram-bad-name."""
    length = len(address)
    if isinstance(address, bytes):
        if length == 4:
            return _IPV4_RUN.pack(
                RUN_DATA, FAMILY_IPV4, hop_limit, traffic_class, port, segment_size, address
            )
        if length == 16:
            return _IPV6_RUN.pack(
                RUN_DATA, FAMILY_IPV6, hop_limit, traffic_class, port, segment_size, address
            )
    family, host = encode_host(address, "datagram")
    if family == FAMILY_NONE:
        raise WireError("datagram-bad-address", "no address")
    return _RUN.pack(RUN_DATA, family, hop_limit, traffic_class, port, segment_size) + host


def encode_error(run: ErrorRun) -> bytes:
    """Return the whole payload of an error run. Raises WireError: datagram-bad-address, datagram-bad-name."""
    family, address = encode_host(run.address, "datagram")
    offender_family, offender = encode_host(run.offender, "datagram")
    if family == FAMILY_NONE:
        raise WireError("datagram-bad-address", "no address")
    fixed = _ERROR.pack(RUN_ERROR, family, run.kind, offender_family, run.port, run.mtu)
    return fixed + offender + address


def decode_run(view: Buffer) -> DataRun | ErrorRun:
    """Return the run that fills ``view``.

    Raises WireError: datagram-truncated, datagram-bad-run (unknown sort of run), datagram-bad-family,
    datagram-bad-name, datagram-bad-error, datagram-bad-segments (none, too many or too long datagrams),
    datagram-trailing-bytes.
    """
    payload = memoryview(view)
    if len(payload) < _RUN.size:
        raise WireError("datagram-truncated", f"{len(payload)} bytes")
    sort, family, hop_limit, traffic_class, port, segment_size = _RUN.unpack_from(payload)
    if family == FAMILY_NONE:
        raise WireError("datagram-bad-family", "no address")
    if sort == RUN_ERROR:
        return _decode_error(payload)
    if sort != RUN_DATA:
        raise WireError("datagram-bad-run", f"sort {sort}")
    if family == FAMILY_IPV4 and len(payload) >= _IPV4_RUN.size:
        start = _IPV4_RUN.size
        address: Host = bytes(payload[_RUN.size : start])
    else:
        address, start = decode_host(payload, _RUN.size, family, "datagram")
    data = payload[start:]
    length = len(data)
    if segment_size:
        if not 0 < length <= segment_size * MAX_RUN_SEGMENTS or segment_size > MAX_DATAGRAM:
            raise WireError("datagram-bad-segments", f"{length} bytes by {segment_size}")
    elif length > MAX_DATAGRAM:
        raise WireError("datagram-bad-segments", f"a datagram of {length} bytes")
    # NamedTuple's own constructor costs more
    return tuple.__new__(DataRun, (address, port, hop_limit, traffic_class, segment_size, data))


def _decode_error(payload: memoryview) -> ErrorRun:
    _, family, error, offender_family, port, mtu = _ERROR.unpack_from(payload)
    kind = _ERROR_KINDS.get(error)
    if kind is None:
        raise WireError("datagram-bad-error", f"error {error}")
    if offender_family == FAMILY_NAME:
        raise WireError("datagram-bad-family", "an offender has no name")
    offender, offset = decode_host(payload, _ERROR.size, offender_family, "datagram")
    address, end = decode_host(payload, offset, family, "datagram")
    if end != len(payload):
        raise WireError("datagram-trailing-bytes", f"{len(payload) - end} bytes")
    assert isinstance(offender, bytes)
    return ErrorRun(kind, offender, address, port, mtu)


def shortest_part(parts: tuple[Buffer, ...]) -> int:
    """Return the bytes of the shortest run that :func:`split_run` can split off; all where it can not."""
    size = _segment_size(parts)
    return len(parts[0]) + size if size else sum(map(len, parts))


def split_run(
    parts: tuple[Buffer, ...], room: int
) -> tuple[tuple[Buffer, Buffer], tuple[Buffer, Buffer]] | None:
    """Split a run, given as its header and its data, so that the first part fits ``room`` bytes.

    Return both parts, runs of whole datagrams; None for a run that cannot be split so.
    """
    size = _segment_size(parts)
    if not size:
        return None
    header, data = parts[0], memoryview(parts[1])
    fitting = (room - len(header)) // size * size
    if fitting <= 0 or fitting >= len(data):
        return None
    return (header, data[:fitting]), (header, data[fitting:])


def _segment_size(parts: tuple[Buffer, ...]) -> int:
    """The size of the datagrams of a data run in two parts, 0 where there is one datagram or no such run."""
    if len(parts) != 2 or len(parts[0]) < _RUN.size or parts[0][0] != RUN_DATA:
        return 0
    size: int = _RUN.unpack_from(parts[0])[5]
    return size if size < len(parts[1]) else 0
