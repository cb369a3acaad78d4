"""A client's question, and the answers that are made here rather than asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dnslib import EDNS0, PTR, SOA, DNSBuffer, DNSHeader, DNSLabelError, DNSQuestion, DNSRecord

from halftunnel_vpn.dns.message_reader import (
    ADDITIONALS,
    CLASS_IN,
    FLAG_AUTHENTIC,
    FLAG_CHECKING_DISABLED,
    FLAG_RECURSION_AVAILABLE,
    FLAG_RECURSION_DESIRED,
    FLAG_RESPONSE,
    FLAG_TRUNCATED,
    HEADER,
    HEADER_LENGTH,
    MAX_NAME,
    OPCODE_MASK,
    RECORD,
    TYPE_AND_CLASS,
    Rcode,
    RecordType,
    name_text,
    question_end,
    records,
)
from halftunnel_vpn.errors import DnsError

PLAIN_UDP_LIMIT = 512
"""Bytes of an answer over UDP to a client without EDNS (RFC 1035 section 4.2.1)."""

EDNS_UDP_LIMIT = 1232
"""Bytes of an answer over UDP, whatever larger size is offered: what fits every path unfragmented."""

DNSSEC_OK = 0x8000
"""The DO bit, in the low half of the TTL field of an OPT record (RFC 3225)."""

_OPT = RecordType.OPT
_OPT_FRONT = b"\x00" + TYPE_AND_CLASS.pack(RecordType.OPT, EDNS_UDP_LIMIT)
_OPT_PLAIN = _OPT_FRONT + b"\x00\x00\x00\x00\x00\x00"
_OPT_DNSSEC_OK = _OPT_FRONT + b"\x00\x00\x80\x00\x00\x00"
_OPT_BAD_VERSION = _OPT_FRONT + b"\x01\x00\x00\x00\x00\x00"
_OWNER = b"\xc0\x0c"
_COPIED_FLAGS = FLAG_RECURSION_DESIRED | FLAG_CHECKING_DISABLED


class Query:
    """One question of a client, as far as answering it needs.

    ``question`` is its section as sent (name, type, class); ``key`` is equal for queries that the same
    answer serves: name in lower case, type, class, DO and CD.
    """

    __slots__ = (
        "_name",
        "class_",
        "dnssec_ok",
        "edns",
        "flags",
        "identifier",
        "is_signed",
        "key",
        "question",
        "type",
        "udp_limit",
    )

    def __init__(
        self,
        identifier: int,
        flags: int,
        question: bytes,
        opt: tuple[int, int] | None,
        *,
        is_signed: bool = False,
    ) -> None:
        self.identifier = identifier
        self.is_signed = is_signed
        self.flags = flags
        self.question = question
        self.type, self.class_ = TYPE_AND_CLASS.unpack_from(question, len(question) - 4)
        self.edns = opt is not None
        self.dnssec_ok = False
        self.udp_limit = PLAIN_UDP_LIMIT
        if opt is not None:
            size, extended = opt
            self.dnssec_ok = bool(extended & DNSSEC_OK)
            self.udp_limit = min(max(size, PLAIN_UDP_LIMIT), EDNS_UDP_LIMIT)
        variant = self.dnssec_ok | (flags & FLAG_CHECKING_DISABLED)
        self.key = question[:-4].lower() + question[-4:] + bytes((variant,))
        self._name: str | None = None

    @property
    def name(self) -> str:
        """In lower case, without the last dot; odd bytes as ``\\DDD``; the root is the empty string."""
        if self._name is None:
            self._name = name_text(self.question)
        return self._name

    @property
    def concerns_server(self) -> bool:
        """Whether only the server that it was sent to can answer it, if any was named.

        Without RD it is about what that server itself knows; zone transfers, classes other than IN (CHAOS:
        the server's own version) and signed queries (TSIG, RFC 8945; SIG(0), RFC 2931) are too.
        """
        return (
            not self.flags & FLAG_RECURSION_DESIRED
            or self.type in (RecordType.AXFR, RecordType.IXFR)
            or self.class_ != CLASS_IN
            or self.is_signed
        )

    @property
    def reply_flags(self) -> int:
        """The flags of every reply to this query; the response code is still to be added."""
        return FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | (self.flags & _COPIED_FLAGS)

    @property
    def wants_authentic(self) -> bool:
        """Whether the client understands the AD bit (RFC 6840 section 5.7)."""
        return self.dnssec_ok or bool(self.flags & FLAG_AUTHENTIC)

    @property
    def opt_record(self) -> bytes:
        """The OPT record that a reply carries; empty when the query had none (RFC 6891 section 6.1.1)."""
        if not self.edns:
            return b""
        return _OPT_DNSSEC_OK if self.dnssec_ok else _OPT_PLAIN

    def question_to_forward(self, identifier: int) -> bytes:
        """Return the same question for a resolver: lower case, and nothing of the client but DO and CD.

        EDNS options are dropped: cookies belong to one hop, client subnets are private.
        """
        flags = FLAG_RECURSION_DESIRED | FLAG_AUTHENTIC | (self.flags & FLAG_CHECKING_DISABLED)
        opt = _OPT_DNSSEC_OK if self.dnssec_ok else _OPT_PLAIN
        return HEADER.pack(identifier, flags, 1, 0, 0, 1) + self.key[:-1] + opt


def parse_query(message: bytes) -> Query:
    """Return the query in ``message``.

    Raises DnsError: ``dns-too-short``, ``dns-not-a-query`` (a response), ``dns-bad-opcode``,
    ``dns-bad-question`` (none or several), ``dns-bad-name``, ``dns-bad-record``, ``dns-bad-edns`` (two OPT
    records, or one elsewhere), ``dns-bad-edns-version``. What :func:`refuse` makes of each is the answer.
    """
    if len(message) < HEADER_LENGTH:
        raise DnsError("dns-too-short")
    identifier, flags, questions, *counts = HEADER.unpack_from(message)
    if flags & FLAG_RESPONSE:
        raise DnsError("dns-not-a-query")
    if flags & OPCODE_MASK:
        raise DnsError("dns-bad-opcode")
    if questions != 1:
        raise DnsError("dns-bad-question")
    end = question_end(message) + TYPE_AND_CLASS.size
    opt = None
    is_signed = False
    if any(counts):
        for record in records(message, end, (counts[0], counts[1], counts[2])):
            if record.type in (RecordType.TSIG, RecordType.SIG) and record.section == ADDITIONALS:
                is_signed = True
            if record.type != _OPT:
                continue
            if opt is not None or record.section != ADDITIONALS or message[record.owner]:
                raise DnsError("dns-bad-edns")
            opt = record
    if opt is None:
        return Query(identifier, flags, message[HEADER_LENGTH:end], None, is_signed=is_signed)
    if message[opt.ttl_offset + 1]:
        raise DnsError("dns-bad-edns-version")
    return Query(identifier, flags, message[HEADER_LENGTH:end], (opt.class_, opt.ttl), is_signed=is_signed)


def zone_name(message: bytes) -> str | None:
    """Return the first name of a message with another opcode, such as the zone of an UPDATE; None if none."""
    if HEADER.unpack_from(message)[2] == 0:
        return None
    try:
        question_end(message)
    except DnsError:
        return None
    return name_text(message[HEADER_LENGTH:])


def refuse(message: bytes, error: DnsError) -> bytes | None:
    """The answer to a ``message`` that :func:`parse_query` raised ``error`` for; None when it gets none.

    A response is never answered (two resolvers would answer each other forever),
    nor is a message without a header.
    """
    if len(message) < HEADER_LENGTH:
        return None
    identifier, flags, *_ = HEADER.unpack_from(message)
    if flags & FLAG_RESPONSE:
        return None
    flags = FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | (flags & (_COPIED_FLAGS | OPCODE_MASK))
    if error.reason == "dns-bad-edns-version":
        return HEADER.pack(identifier, flags | Rcode.NOERROR, 0, 0, 0, 1) + _OPT_BAD_VERSION
    rcode = Rcode.NOTIMP if error.reason == "dns-bad-opcode" else Rcode.FORMERR
    return HEADER.pack(identifier, flags | rcode, 0, 0, 0, 0)


class LocalRecord(NamedTuple):
    """A record about the name that was asked for; ``ttl`` in seconds, ``data`` as on the wire."""

    type: int
    ttl: int
    data: bytes


def local_answer(
    query: Query,
    rcode: int = Rcode.NOERROR,
    answers: Sequence[LocalRecord] = (),
    authorities: Sequence[LocalRecord] = (),
    *,
    stream: bool,
) -> bytes:
    """Return a complete reply of our own making, truncated where UDP demands it (``stream``: it does not)."""
    opt = query.opt_record
    flags = query.reply_flags | rcode
    body = b"".join(
        _OWNER + RECORD.pack(record.type, CLASS_IN, record.ttl, len(record.data)) + record.data
        for record in (*answers, *authorities)
    )
    if not stream and HEADER_LENGTH + len(query.question) + len(body) + len(opt) > query.udp_limit:
        return truncated(query, flags)
    header = HEADER.pack(query.identifier, flags, 1, len(answers), len(authorities), 1 if opt else 0)
    return header + query.question + body + opt


def truncated(query: Query, flags: int) -> bytes:
    """Return a reply without records, whose TC bit makes the client ask by TCP."""
    opt = query.opt_record
    header = HEADER.pack(query.identifier, flags | FLAG_TRUNCATED, 1, 0, 0, 1 if opt else 0)
    return header + query.question + opt


def negative_authority(ttl: int) -> LocalRecord:
    """The SOA record that lets a client remember for ``ttl`` seconds that there is nothing (RFC 2308)."""
    buffer = DNSBuffer()
    SOA("localhost.", "nobody.invalid.", (1, 3600, 1200, 604800, ttl)).pack(buffer)
    return LocalRecord(RecordType.SOA, ttl, bytes(buffer.data))


def ptr_record(name: str, ttl: int) -> LocalRecord:
    """Return the PTR record of ``name``."""
    buffer = DNSBuffer()
    PTR(name).pack(buffer)
    return LocalRecord(RecordType.PTR, ttl, bytes(buffer.data))


def minimal_any(ttl: int) -> LocalRecord:
    """Return what answers a question for ANY (RFC 8482 section 4.2)."""
    return LocalRecord(RecordType.HINFO, ttl, b"\x07RFC8482\x00")


def address_query(name: str, type_: RecordType) -> bytes:
    """Return a query for the addresses of ``name``; raises DnsError(``dns-bad-name``) for an invalid name."""
    if len(name) > MAX_NAME:
        raise DnsError("dns-bad-name", "too long")
    try:
        query = DNSRecord(DNSHeader(id=0, rd=1), [DNSQuestion(name, int(type_))])
        query.add_ar(EDNS0(udp_len=EDNS_UDP_LIMIT))
        return bytes(query.pack())
    except (DNSLabelError, UnicodeError) as error:
        raise DnsError("dns-bad-name", str(error)) from None
