"""Messages made by dnslib, which nothing under test reads with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dnslib import EDNS0, QTYPE, RCODE, RR, DNSHeader, DNSLabel, DNSQuestion, DNSRecord

Ask = Callable[..., bytes]
Respond = Callable[..., bytes]


@pytest.fixture
def ask() -> Ask:
    """``ask("WWW.example.org", "A", identifier=7, edns=1232, dnssec_ok=True)`` -> the query's bytes."""

    def make(
        name: str,
        type_: str = "A",
        *,
        identifier: int = 7,
        edns: int | None = None,
        dnssec_ok: bool = False,
        class_: int = 1,
        **flags: int,
    ) -> bytes:
        label = DNSLabel(tuple(part.encode() for part in name.split(".") if part))
        header = DNSHeader(id=identifier, rd=flags.pop("rd", 1), **flags)
        record = DNSRecord(header, [DNSQuestion(label, getattr(QTYPE, type_), class_)])
        if edns is not None:
            record.add_ar(EDNS0(udp_len=edns, flags="do" if dnssec_ok else ""))
        return bytes(record.pack())

    return make


@pytest.fixture
def respond() -> Respond:
    """``respond(query, "example.org. 60 A 192.0.2.1", authority="...", rcode="NXDOMAIN")`` -> the answer."""

    def make(
        query: bytes,
        zone: str = "",
        *,
        authority: str = "",
        additional: str = "",
        rcode: str = "NOERROR",
        **flags: int,
    ) -> bytes:
        asked = DNSRecord.parse(query)
        edns = any(record.rtype == QTYPE.OPT for record in asked.ar)
        header = DNSHeader(id=asked.header.id, qr=1, rd=1, ra=1, rcode=getattr(RCODE, rcode), **flags)
        record = DNSRecord(header, asked.questions)
        record.add_answer(*RR.fromZone(zone))
        record.add_auth(*RR.fromZone(authority))
        record.add_ar(*RR.fromZone(additional))
        if edns:
            record.add_ar(EDNS0(udp_len=4096))
        return bytes(record.pack())

    return make
