"""Proxies: what programs say to them, and what web servers answer through them."""

from __future__ import annotations

from contextlib import suppress

from fuzz_targets.script import Script
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.http1.exchange import ClientSide, ServerSide
from halftunnel_vpn.http1.messages import (
    MalformedMessage,
    RequestHead,
    ResponseHead,
    Signal,
    UnsendableMessage,
)
from halftunnel_vpn.protocol.datagram import encode_run_header
from halftunnel_vpn.protocol.stream_messages import OpenRequest, StreamKind
from halftunnel_vpn.proxy.forwarded_head import end_to_end, forwarded_request
from halftunnel_vpn.proxy.http_negotiation import MAX_HEAD, HttpNegotiation
from halftunnel_vpn.proxy.negotiation import Command, Negotiation
from halftunnel_vpn.proxy.refusals import Refusal
from halftunnel_vpn.proxy.socks import MAX_STEP, SocksNegotiation, datagram_header, read_datagram

USERS = {"alice": "word"}
REFUSALS = tuple(Refusal)


def _negotiate(script: Script, negotiation: Negotiation) -> int:
    """Say what the script says; return how many bytes the proxy has answered with."""
    answered = 0
    while script and negotiation.request is None and not negotiation.is_over:
        negotiation.receive(script.piece())
        answered += len(negotiation.outgoing())
    request = negotiation.request
    if request is None or negotiation.is_over:
        return answered
    if request.command is Command.CONNECT:
        OpenRequest(StreamKind.TCP, request.host, request.port, 0).encode()  # the wire has room for it
    if request.command is not Command.FORWARD:
        negotiation.rest()
        code = script.number()
        reply = negotiation.refused(REFUSALS[code % len(REFUSALS)]) if code else negotiation.granted()
        assert reply
    return answered


def socks_program(data: bytes) -> None:
    """A program at the SOCKS port; the first byte says whether it needs a password."""
    script = Script(data)
    negotiation = SocksNegotiation(USERS if script.number() & 1 else {}, Counters())
    assert _negotiate(script, negotiation) < 256
    assert negotiation.is_over or negotiation.request or len(negotiation.rest()) <= MAX_STEP


def socks_datagram(data: bytes) -> None:
    """A datagram of a program."""
    found = read_datagram(memoryview(data))
    if found is None:
        return
    host, port, payload = found
    encode_run_header(host, port)
    assert read_datagram(memoryview(datagram_header(host, port) + payload)) == (host, port, payload)


def http_program(data: bytes) -> None:
    """A program at the HTTP port, and what its request becomes."""
    script = Script(data)
    negotiation = HttpNegotiation(USERS if script.number() & 1 else {}, Counters())
    _negotiate(script, negotiation)
    if negotiation.request is None or negotiation.head is None:
        return
    request = forwarded_request(negotiation.head)
    assert request is not None
    OpenRequest(StreamKind.TCP, request.host, request.port, 0).encode()
    assert not {b"proxy-authorization", b"connection"} & {name for name, _ in request.head.headers}
    with suppress(UnsendableMessage):
        written = ClientSide(max_head=MAX_HEAD).request(request.head)
        assert written.count(b"\r\n\r\n") == 1 and b"\0" not in written


def http_answer(data: bytes) -> None:
    """A web server's answer on its way to the program, as HttpForward passes it on."""
    script = Script(data)
    method = (b"GET", b"HEAD", b"POST")[script.number() % 3]
    program, origin = ServerSide(max_head=MAX_HEAD), ClientSide(max_head=MAX_HEAD)
    program.feed(method + b" http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n")
    head = program.next()
    assert isinstance(head, RequestHead) and program.next() is Signal.END
    origin.request(RequestHead(method, b"/", [(b"Host", b"a.test")]))
    origin.end()
    with suppress(MalformedMessage, UnsendableMessage):
        while script:
            origin.feed(script.piece())
            while True:
                part = origin.next()
                if isinstance(part, ResponseHead):
                    program.response(part._replace(headers=end_to_end(part.headers)))
                elif isinstance(part, bytes):
                    program.data(part)
                elif part is Signal.END:
                    program.end()
                    return
                else:
                    break
