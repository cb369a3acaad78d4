"""What a resolver answered: checked, without what concerned only us and it, ready to be sent many times."""

from __future__ import annotations

import ipaddress
import struct

from halftunnel_vpn.dns.message import Query, truncated
from halftunnel_vpn.dns.message_reader import (
    ANSWERS,
    AUTHORITIES,
    CLASS_IN,
    FLAG_AUTHENTIC,
    FLAG_RESPONSE,
    FLAG_TRUNCATED,
    HEADER,
    HEADER_LENGTH,
    RCODE_MASK,
    TYPE_AND_CLASS,
    NameReader,
    Rcode,
    Record,
    RecordType,
    question_end,
    records,
    skip_name,
)
from halftunnel_vpn.errors import DnsError

MAX_ALIASES = 16
"""CNAME records that are followed for one name."""

MAX_RECORDS = 256
"""Records of an answer that are read for addresses; honest answers hold fewer."""

_TTL = struct.Struct("!I")
_FRONT = struct.Struct("!HH")
_ADDITIONAL_COUNT = struct.Struct("!H")
_ADDITIONAL_COUNT_OFFSET = 10
_OPT = RecordType.OPT


class Answer:
    """One answer, without its OPT record, and where its TTLs lie.

    ``lifetime`` is for how many seconds it may be remembered (None: not at all): the shortest TTL of its
    answers, or for a negative one that of its SOA record (RFC 2308 section 5).
    """

    __slots__ = ("authentic", "lifetime", "negative", "rcode", "truncated", "ttl_offsets", "ttls", "wire")

    def __init__(self, wire: bytes, flags: int, ttl_offsets: tuple[int, ...], ttls: tuple[int, ...]) -> None:
        self.wire = wire
        self.rcode = flags & RCODE_MASK
        self.authentic = bool(flags & FLAG_AUTHENTIC)
        self.truncated = bool(flags & FLAG_TRUNCATED)
        self.ttl_offsets = ttl_offsets
        self.ttls = ttls
        self.negative = False
        self.lifetime: int | None = None

    def bound_ttls(self, floor: int, ceiling: int) -> None:
        """Move every TTL to within ``floor`` and ``ceiling`` seconds."""
        wire = bytearray(self.wire)
        self.ttls = tuple(min(max(ttl, floor), ceiling) for ttl in self.ttls)
        for offset, ttl in zip(self.ttl_offsets, self.ttls, strict=True):
            _TTL.pack_into(wire, offset, ttl)
        self.wire = bytes(wire)

    def render(self, query: Query, age: int, *, stream: bool) -> bytes:
        """Return the reply to ``query``, ``age`` seconds after the answer came in.

        Its id and its spelling of the name are those of the query, its TTLs are shorter by the age; it is
        truncated where UDP demands it (``stream``: it does not).
        """
        flags = query.reply_flags | self.rcode
        if self.authentic and query.wants_authentic:
            flags |= FLAG_AUTHENTIC
        wire = self.wire
        opt = query.opt_record
        if self.truncated or (not stream and len(wire) + len(opt) > query.udp_limit):
            return truncated(query, flags)
        reply = bytearray(wire)
        _FRONT.pack_into(reply, 0, query.identifier, flags)
        question = query.question
        reply[HEADER_LENGTH : HEADER_LENGTH + len(question)] = question
        if age:
            pack_into = _TTL.pack_into
            for offset, ttl in zip(self.ttl_offsets, self.ttls, strict=True):
                pack_into(reply, offset, ttl - age if ttl > age else 0)
        if opt:
            (count,) = _ADDITIONAL_COUNT.unpack_from(wire, _ADDITIONAL_COUNT_OFFSET)
            _ADDITIONAL_COUNT.pack_into(reply, _ADDITIONAL_COUNT_OFFSET, count + 1)
            reply += opt
        return bytes(reply)


def same_question(message: bytes, question: bytes) -> bool:
    """Whether ``question`` (as on the wire), in any letter case, is the one question of ``message``."""
    end = HEADER_LENGTH + len(question)
    if message[4:6] != b"\x00\x01" or len(message) < end:
        return False
    asked = message[HEADER_LENGTH:end]
    return asked == question or (asked[-4:] == question[-4:] and asked[:-4].lower() == question[:-4].lower())


def parse_answer(message: bytes, query: Query) -> Answer:
    """Return the answer to ``query`` in ``message``.

    Raises DnsError: ``dns-bad-answer`` (no response at all), ``dns-wrong-answer`` (to another question),
    ``dns-bad-name``, ``dns-bad-record``, ``dns-bad-edns`` (a response code beyond the header's).
    """
    if len(message) < HEADER_LENGTH:
        raise DnsError("dns-bad-answer", "too short")
    identifier, flags, _, *counts = HEADER.unpack_from(message)
    if not flags & FLAG_RESPONSE:
        raise DnsError("dns-bad-answer", "not a response")
    if not same_question(message, query.question):
        raise DnsError("dns-wrong-answer")
    end = HEADER_LENGTH + len(query.question)
    kept: list[Record] = []
    if not flags & FLAG_TRUNCATED:
        for record in records(message, end, (counts[0], counts[1], counts[2])):
            if record.type == _OPT:
                if record.ttl >> 24:
                    raise DnsError("dns-bad-edns")
                # What follows an OPT record is optional, and may point behind it: leave both away.
                break
            kept.append(record)
            end = record.end
    sections = [record.section for record in kept]
    header = HEADER.pack(identifier, flags, 1, *(sections.count(section) for section in range(3)))
    answer = Answer(
        header + message[HEADER_LENGTH:end],
        flags,
        tuple(record.ttl_offset for record in kept),
        tuple(record.ttl for record in kept),
    )
    _judge(answer, query.type, kept)
    return answer


def _judge(answer: Answer, type_: int, kept: list[Record]) -> None:
    """Set ``negative`` and ``lifetime``."""
    if answer.truncated or answer.rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
        return
    ttls = [record.ttl for record in kept if record.section == ANSWERS]
    found = any(record.section == ANSWERS and record.type == type_ for record in kept)
    if not found or answer.rcode == Rcode.NXDOMAIN:
        answer.negative = True
        denial = next((r for r in kept if r.section == AUTHORITIES and r.type == RecordType.SOA), None)
        if denial is None or denial.length < 22:
            return
        minimum = _TTL.unpack_from(answer.wire, denial.end - _TTL.size)[0]
        ttls.append(min(denial.ttl, minimum))
    answer.lifetime = min(ttls)


def addresses_in(message: bytes, type_: int) -> list[str]:
    """The addresses that an answer to a question for ``type_`` (A or AAAA) holds, behind its CNAME records.

    Raises DnsError as :func:`parse_answer` does, and ``dns-too-many-aliases``.
    """
    if len(message) < HEADER_LENGTH:
        raise DnsError("dns-bad-answer", "too short")
    *_, answers, authorities, additionals = HEADER.unpack_from(message)
    size = 4 if type_ == RecordType.A else 16
    names = NameReader(message)
    aliases: dict[str, str] = {}
    found: dict[str, list[bytes]] = {}
    end = question_end(message) + TYPE_AND_CLASS.size
    for number, record in enumerate(records(message, end, (answers, authorities, additionals))):
        if record.section != ANSWERS or number >= MAX_RECORDS:
            break
        if record.class_ != CLASS_IN:
            continue
        if record.type == RecordType.CNAME:
            if skip_name(message, record.data) != record.end:
                raise DnsError("dns-bad-record", "the data is not a name")
            aliases[names.text(record.owner)] = names.text(record.data)
        elif record.type == type_:
            if record.length != size:
                raise DnsError("dns-bad-record", "the data is not an address")
            found.setdefault(names.text(record.owner), []).append(message[record.data : record.end])
    name = names.text(HEADER_LENGTH)
    for _ in range(MAX_ALIASES):
        if name not in aliases:
            return [str(ipaddress.ip_address(address)) for address in found.get(name, ())]
        name = aliases[name]
    raise DnsError("dns-too-many-aliases")
