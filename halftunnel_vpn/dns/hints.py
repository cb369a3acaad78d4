"""Addresses that answers hand out unasked: hints in SVCB and HTTPS records (RFC 9460), additional records.

Where names have fake addresses, or IPv6 leads nowhere, an application must not learn real ones that way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from halftunnel_vpn.dns.answer import same_question
from halftunnel_vpn.dns.message import Query
from halftunnel_vpn.dns.message_reader import (
    ADDITIONALS,
    ANSWERS,
    FLAG_AUTHENTIC,
    FLAG_TRUNCATED,
    HEADER,
    HEADER_LENGTH,
    RECORD,
    NameReader,
    Record,
    RecordType,
    records,
    skip_name,
)
from halftunnel_vpn.errors import DnsError
from halftunnel_vpn.protocol.dns_framing import MAX_MESSAGE

MANDATORY = 0
IPV4_HINT = 4
IPV6_HINT = 6

ALL_HINTS = frozenset({IPV4_HINT, IPV6_HINT})
IPV6_HINTS = frozenset({IPV6_HINT})

_PARAMETER = struct.Struct("!HH")
_KEY = struct.Struct("!H")
_ADDRESSES = (RecordType.A, RecordType.AAAA)
_SERVICES = (RecordType.SVCB, RecordType.HTTPS)
_QUESTION_NAME = b"\xc0\x0c"


def without_hints(message: bytes, query: Query, hidden: frozenset[int], *, hide_records: bool) -> bytes:
    """Return the answer to ``query`` in ``message`` without hints of the keys in ``hidden``.

    ``hide_records``: without additional address records, too. An answer that loses hints loses its signatures
    and everything beside aliases and services. A message that does not answer ``query`` is returned as it is.

    Raises DnsError: ``dns-bad-name``, ``dns-bad-record``, ``dns-unasked-address`` (an address record among
    the answers to another question).
    """
    if len(message) < HEADER_LENGTH or not same_question(message, query.question):
        return message
    identifier, flags, questions, *counts = HEADER.unpack_from(message)
    if flags & FLAG_TRUNCATED:
        return message
    start = end = HEADER_LENGTH + len(query.question)
    answers: list[Record] = []
    found_hint = found_address = False
    for record in records(message, start, (counts[0], counts[1], counts[2])):
        if record.section == ADDITIONALS:
            found_address = found_address or record.type in _ADDRESSES or record.type in _SERVICES
            continue
        end = record.end
        if record.type in _ADDRESSES and hide_records and query.type not in _ADDRESSES:
            raise DnsError("dns-unasked-address")
        if record.section == ANSWERS:
            answers.append(record)
        if record.type in _SERVICES and not hidden.isdisjoint(_keys(message, record)):
            found_hint = True
    if found_hint:
        body = _rebuilt(message, answers, hidden)
        header = HEADER.pack(identifier, flags & ~FLAG_AUTHENTIC, questions, len(body), 0, 0)
        rebuilt = header + message[HEADER_LENGTH:start] + b"".join(body)
        if len(rebuilt) > MAX_MESSAGE:
            raise DnsError("dns-bad-record", "too long without compression")
        return rebuilt
    if found_address and hide_records:
        # Nothing before the additional records points to them: what stays keeps its place and its signatures.
        return HEADER.pack(identifier, flags, questions, counts[0], counts[1], 0) + message[HEADER_LENGTH:end]
    return message


def _rebuilt(message: bytes, answers: list[Record], hidden: frozenset[int]) -> list[bytes]:
    """Return the aliases and services among ``answers``, without hints and without compressed names."""
    names = NameReader(message)
    question = names.labels(HEADER_LENGTH)
    rebuilt = []
    size = 0
    for record in answers:
        if record.type == RecordType.CNAME:
            data = _wire_name(names.labels(record.data))
        elif record.type in _SERVICES:
            data = _without(message, record, hidden, names)
        else:
            continue
        labels = names.labels(record.owner)
        owner = _QUESTION_NAME if labels == question else _wire_name(labels)
        rebuilt.append(owner + RECORD.pack(record.type, record.class_, record.ttl, len(data)) + data)
        size += len(rebuilt[-1])
        if size > MAX_MESSAGE:
            break
    return rebuilt


def _wire_name(labels: tuple[bytes, ...]) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\x00"


def _parameters_at(message: bytes, record: Record) -> int:
    """Return where the parameters of a service begin: behind its priority and its uncompressed target."""
    if record.length < 3:
        raise DnsError("dns-bad-record", "a service without a target")
    at = skip_name(message, record.data + 2)
    if at > record.end:
        raise DnsError("dns-bad-record", "the target is cut short")
    return at


def _parameters(message: bytes, record: Record) -> Iterator[tuple[int, bytes]]:
    """Keys and values of a service's parameters (RFC 9460 section 2.2)."""
    at = _parameters_at(message, record)
    while at < record.end:
        if at + _PARAMETER.size > record.end:
            raise DnsError("dns-bad-record", "a parameter is cut short")
        key, length = _PARAMETER.unpack_from(message, at)
        at += _PARAMETER.size
        if at + length > record.end:
            raise DnsError("dns-bad-record", "a parameter is cut short")
        yield key, message[at : at + length]
        at += length


def _keys(message: bytes, record: Record) -> set[int]:
    return {key for key, _ in _parameters(message, record)}


def _without(message: bytes, record: Record, hidden: frozenset[int], names: NameReader) -> bytes:
    """Return the data of a service without the hidden parameters, which must not be mandatory then."""
    parts = [message[record.data : record.data + 2], _wire_name(names.labels(record.data + 2))]
    for key, value in _parameters(message, record):
        if key in hidden:
            continue
        if key == MANDATORY:
            listed = [value[at : at + 2] for at in range(0, len(value) - 1, 2)]
            value = b"".join(one for one in listed if _KEY.unpack(one)[0] not in hidden)
            if not value:
                continue
        parts.append(_PARAMETER.pack(key, len(value)) + value)
    return b"".join(parts)
