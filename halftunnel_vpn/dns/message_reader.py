"""Read untrusted DNS messages (RFC 1035 section 4).

dnslib writes messages; it does not read them here: a crafted compression pointer makes it recurse without
end, and one 62 KB answer costs it half a minute. What follows never looks at a byte twice without progress.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from halftunnel_vpn.errors import DnsError

HEADER = struct.Struct("!6H")
"""Id, flags, and the counts of questions, answers, authorities and additionals."""

HEADER_LENGTH = HEADER.size
RECORD = struct.Struct("!HHIH")
"""What follows the owner of a record: type, class, TTL, length of the data."""

TYPE_AND_CLASS = struct.Struct("!HH")
MAX_NAME = 255
"""Bytes a name takes on the wire, at most (RFC 1035 section 2.3.4)."""

MAX_LABEL = 63
MAX_POINTERS = 126
"""Compression pointers of one name: one behind each label that a name of 255 bytes can have but the last."""

MAX_NAME_STEPS = 8192
"""Labels and pointers that are read for all names of one message. An honest answer repeats few names."""

MAX_TTL = 0x7FFFFFFF
"""Seconds; a TTL with the top bit set means zero (RFC 2181 section 8)."""

FLAG_RESPONSE = 0x8000
OPCODE_MASK = 0x7800
FLAG_TRUNCATED = 0x0200
FLAG_RECURSION_DESIRED = 0x0100
FLAG_RECURSION_AVAILABLE = 0x0080
FLAG_AUTHENTIC = 0x0020
FLAG_CHECKING_DISABLED = 0x0010
RCODE_MASK = 0x000F

CLASS_IN = 1
ANSWERS, AUTHORITIES, ADDITIONALS = range(3)
"""The sections of records, as :attr:`Record.section` numbers them."""

_ODD_BYTE = re.compile(rb"[^a-z0-9_-]")


class RecordType(IntEnum):
    """The types that this package treats in some way of its own."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    HINFO = 13
    SIG = 24
    AAAA = 28
    OPT = 41
    RRSIG = 46
    SVCB = 64
    HTTPS = 65
    TSIG = 250
    IXFR = 251
    AXFR = 252
    ANY = 255


class Rcode(IntEnum):
    """Response codes (RFC 1035 section 4.1.1, RFC 6891 section 9)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Record(NamedTuple):
    """Where one record lies in its message; offsets count from the start of the message."""

    section: int
    owner: int
    type: int
    class_: int
    ttl: int
    data: int
    length: int

    @property
    def ttl_offset(self) -> int:
        """Offset of the four bytes of the TTL."""
        return self.data - 6

    @property
    def end(self) -> int:
        """Offset of the first byte after the record."""
        return self.data + self.length


def question_end(message: bytes) -> int:
    """Offset of the first byte after the name of the first question, which nothing may compress.

    Raises DnsError(``dns-bad-name``). At least type and class follow the offset that is returned.
    """
    offset = HEADER_LENGTH
    try:
        while length := message[offset]:
            if length > MAX_LABEL:
                raise DnsError("dns-bad-name", "a question holds a compressed label")
            offset += length + 1
    except IndexError:
        raise DnsError("dns-bad-name", "the question is cut short") from None
    offset += 1
    if offset - HEADER_LENGTH > MAX_NAME or offset + TYPE_AND_CLASS.size > len(message):
        raise DnsError("dns-bad-name", "the name is too long or the question cut short")
    return offset


def skip_name(message: bytes, offset: int) -> int:
    """Return the offset of the first byte after the name at ``offset``; raises DnsError(``dns-bad-name``)."""
    start = offset
    try:
        while length := message[offset]:
            if length >= 0xC0:
                return offset + 2
            if length > MAX_LABEL:
                raise DnsError("dns-bad-name", "unknown kind of label")
            offset += length + 1
            if offset - start >= MAX_NAME:
                raise DnsError("dns-bad-name", "too long")
    except IndexError:
        raise DnsError("dns-bad-name", "cut short") from None
    return offset + 1


class NameReader:
    """Reads the names of one message, which may be compressed, and remembers them by offset.

    The work for a whole message is bounded, whatever its pointers look like: a message of 64 KiB has room
    for thousands of names that each go through thousands of pointers.
    """

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._known: dict[int, tuple[bytes, ...]] = {}
        self._texts: dict[tuple[bytes, ...], str] = {}
        self._steps = MAX_NAME_STEPS

    def labels(self, offset: int) -> tuple[bytes, ...]:
        """Return the labels of the name at ``offset``, without the root's.

        Raises DnsError(``dns-bad-name``). Every pointer must lead further back than the one before it (RFC
        1035 section 4.1.4: a *prior* occurrence), which ends every loop.
        """
        known = self._known.get(offset)
        if known is not None:
            return known
        message = self._message
        labels: list[bytes] = []
        start = limit = offset
        room = MAX_NAME - 1
        followed: list[tuple[int, int]] = []
        try:
            while length := message[offset]:
                self._steps -= 1
                if self._steps < 0:
                    raise DnsError("dns-bad-name", "the message has too many different names")
                if length >= 0xC0:
                    offset = (length & 0x3F) << 8 | message[offset + 1]
                    if offset >= limit or len(followed) >= MAX_POINTERS:
                        raise DnsError("dns-bad-name", "a compression pointer does not lead back soon")
                    known = self._known.get(offset)
                    if known is not None:
                        room -= sum(map(len, known)) + len(known)
                        if room < 0:
                            raise DnsError("dns-bad-name", "too long")
                        labels += known
                        break
                    followed.append((offset, len(labels)))
                    limit = offset
                    continue
                if length > MAX_LABEL:
                    raise DnsError("dns-bad-name", "unknown kind of label")
                room -= length + 1
                end = offset + 1 + length
                if room < 0 or end > len(message):
                    raise DnsError("dns-bad-name", "too long or cut short")
                labels.append(message[offset + 1 : end])
                offset = end
        except IndexError:
            raise DnsError("dns-bad-name", "cut short") from None
        found = self._known[start] = tuple(labels)
        for target, before in followed:
            self._known[target] = found[before:]
        return found

    def text(self, offset: int) -> str:
        """Return the name at ``offset`` as :func:`name_text` spells it; raises as :meth:`labels` does."""
        labels = self.labels(offset)
        text = self._texts.get(labels)
        if text is None:
            text = self._texts[labels] = ".".join(map(_label_text, labels))
        return text


def read_name(message: bytes, offset: int) -> str:
    """Return the one name at ``offset`` that is of interest; raises as :meth:`NameReader.labels` does."""
    return NameReader(message).text(offset)


def name_text(wire: bytes) -> str:
    """An uncompressed name of the wire in lower case without the last dot; the root is the empty string.

    Bytes that are no letter, digit, hyphen or underscore become ``\\DDD`` (RFC 4343 section 2.1).
    """
    return read_name(wire, 0)


def _label_text(label: bytes) -> str:
    return _ODD_BYTE.sub(lambda odd: b"\\%03d" % odd[0][0], label.lower()).decode("ascii")


def records(message: bytes, offset: int, counts: tuple[int, int, int]) -> Iterator[Record]:
    """The records from ``offset`` on, in order; ``counts`` are those of the three sections.

    Raises DnsError(``dns-bad-name``, ``dns-bad-record``) at the first that is malformed.
    """
    size = len(message)
    unpack = RECORD.unpack_from
    for section, count in enumerate(counts):
        for _ in range(count):
            owner = offset
            offset = skip_name(message, offset)
            data = offset + RECORD.size
            if data > size:
                raise DnsError("dns-bad-record", "cut short")
            type_, class_, ttl, length = unpack(message, offset)
            offset = data + length
            if offset > size:
                raise DnsError("dns-bad-record", "the data is cut short")
            yield Record(section, owner, type_, class_, ttl if ttl <= MAX_TTL else 0, data, length)
