"""Make records of captured TCP segments: TLS records, or segments sent together if frames are cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from halftunnel_vpn.audit.observation import AuditRecord, Observation, Source
from halftunnel_vpn.audit.pcap import Segment
from halftunnel_vpn.audit.record_log import MAX_RECORDS
from halftunnel_vpn.errors import UsageError

JOIN_GAP: Final = 0.0005
"""Seconds within which segments of one direction are one record, where TLS records cannot be read."""

MIN_BYTES: Final = 2000
"""Bytes of payload from which a connection is examined."""

MAX_CONNECTIONS: Final = 4096
"""TCP connections of one capture; a busier one is refused."""

MAX_EARLY_SEGMENTS: Final = 1024
"""Segments of one direction that may have overtaken a missing one before it counts as not captured."""

_APPLICATION_DATA: Final = 23
_TLS_KINDS: Final = frozenset((20, 21, 22, 23, 24))
_TLS_HEAD: Final = 5
_HALF: Final = 1 << 31
_SPACE: Final = 1 << 32

End = tuple[bytes, int]
Direction = tuple[End, End]


def from_segments(
    segments: Iterable[Segment], *, mode: str | None = None, servers: Iterable[tuple[bytes, int | None]] = ()
) -> Observation:
    """Return the records of the connections to ``servers``, addresses with or without a port; none: all.

    Raises UsageError when there is nothing to see, or too much.
    """
    wanted = list(servers)
    by_direction: dict[Direction, list[Segment]] = {}
    for segment in segments:
        source = (segment.source, segment.source_port)
        destination = (segment.destination, segment.destination_port)
        if wanted and not any(_is_at(end, server) for end in (source, destination) for server in wanted):
            continue
        if segment.length:
            by_direction.setdefault((source, destination), []).append(segment)
        if len(by_direction) > 2 * MAX_CONNECTIONS:
            raise UsageError("the capture has too many connections: name the exit's addresses with --exit")
    volumes: Counter[frozenset[End]] = Counter()
    for direction, found in by_direction.items():
        volumes[frozenset(direction)] += sum(segment.length for segment in found)
    kept = {ends for ends, volume in volumes.items() if volume >= MIN_BYTES}
    if not kept:
        raise UsageError("the capture has no TCP connection that carries data")
    servers_seen = _server_ends(kept)
    names = {ends: str(number) for number, ends in enumerate(sorted(kept, key=sorted), 1)}
    records: list[AuditRecord] = []
    whole = True
    for direction, found in by_direction.items():
        ends = frozenset(direction)
        if ends in kept:
            up = direction[1] in servers_seen
            made = tls_records(found, up, names[ends])
            if made is None:
                whole = False
                made = joined(found, up, names[ends])
            records += made
    if len(records) > MAX_RECORDS:
        raise UsageError(f"the capture has more than {MAX_RECORDS} records: capture for a shorter time")
    records.sort()
    start = records[0].at
    records = [record._replace(at=record.at - start) for record in records]
    return Observation(Source.CAPTURE, mode, records, whole)


def tls_records(segments: list[Segment], up: bool, leg: str) -> list[AuditRecord] | None:
    """Return the records of application data of one direction; None when their heads are not all there."""
    found: list[AuditRecord] = []
    rest = b""
    early: dict[int, Segment] = {}
    expected: int | None = None
    for segment in segments:
        if len(segment.payload) < segment.length:
            return None
        if expected is None:
            expected = segment.sequence
        early[segment.sequence] = segment
        if len(early) > MAX_EARLY_SEGMENTS:
            return None
        while expected in early or (early and _passed(min(early), expected)):
            place = expected if expected in early else min(early)
            current = early.pop(place)
            overlap = (expected - place) % _SPACE
            if overlap >= current.length:
                continue  # sent again
            rest += current.payload[overlap:]
            expected = (place + current.length) % _SPACE
            while len(rest) >= _TLS_HEAD:
                if rest[0] not in _TLS_KINDS or rest[1] != 3:
                    return None
                size = int.from_bytes(rest[3:5], "big")
                if len(rest) < _TLS_HEAD + size:
                    break
                if rest[0] == _APPLICATION_DATA:
                    found.append(AuditRecord(current.at, up, leg, size))
                rest = rest[_TLS_HEAD + size :]
    return found


def joined(segments: list[Segment], up: bool, leg: str) -> list[AuditRecord]:
    """Return a record for all segments of one direction that follow each other at once."""
    found: list[AuditRecord] = []
    last = float("-inf")
    for segment in segments:
        if segment.at - last <= JOIN_GAP:
            found[-1] = found[-1]._replace(size=found[-1].size + segment.length)
        else:
            found.append(AuditRecord(segment.at, up, leg, segment.length))
        last = segment.at
    return found


def _server_ends(connections: Iterable[frozenset[End]]) -> frozenset[End]:
    """Return the exit's end of each connection: the end that most connections share, or the lower port."""
    shared: Counter[End] = Counter(end for ends in connections for end in ends)
    chosen = set()
    for ends in connections:
        chosen.add(max(ends, key=lambda end: (shared[end], -end[1])))
    return frozenset(chosen)


def _is_at(end: End, server: tuple[bytes, int | None]) -> bool:
    return end[0] == server[0] and server[1] in (None, end[1])


def _passed(sequence: int, expected: int) -> bool:
    """Return whether a sequence number lies before the expected one, modulo 2**32."""
    return 0 < (expected - sequence) % _SPACE < _HALF
