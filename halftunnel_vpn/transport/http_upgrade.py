"""One accepted connection until its request has come: it becomes a leg, or gets an answer of a web server."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

from websockets.datastructures import Headers
from websockets.http11 import Request as UpgradeRequest
from websockets.server import ServerProtocol

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import PeerError
from halftunnel_vpn.protocol.records import MAX_RECORD
from halftunnel_vpn.transport.admission import Admission, IpAddress, ListenLimits, Ticket
from halftunnel_vpn.transport.certificate_store import asked_name
from halftunnel_vpn.transport.decoy_site import Sites
from halftunnel_vpn.transport.fallback import hand_over, passed_on
from halftunnel_vpn.transport.http_head import HeadReader, HttpRequest, parse_request
from halftunnel_vpn.transport.leg import Leg, LegListener
from halftunnel_vpn.transport.websockets_log import WEBSOCKET_LOGGER

LegFactory = Callable[[Leg, Callable[[], None]], LegListener]
"""Makes the listener of a leg that came in; may keep the leg, must not send on it yet.

The second argument must be called once the leg has joined a session: until then it counts as a stranger's.
"""

LINGER_TIMEOUT = 10.0
"""Seconds that a visitor has to take its answer and go; what it still sends is thrown away."""

_REFUSALS = {
    "http-malformed": HTTPStatus.BAD_REQUEST,
    "http-head-too-long": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
}


class VisitorOwner(Protocol):
    """Gives visitors their bounds and pages, and is called about their lives; Listener implements it."""

    # Legs by the path that a visitor must ask for.
    paths: dict[str, LegFactory]
    # The pages of each host.
    sites: Sites
    # Address and port of the web server that answers strangers, if there is one.
    fallback: tuple[str, int] | None
    limits: ListenLimits
    admission: Admission
    counters: Counters
    clock: Callable[[], float]

    def refuse(self, peer: IpAddress, reason: str) -> None:
        """Count and log that ``peer`` was refused."""

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the work of one visitor until it ends or the owner closes."""

    def visitor_came(self, visitor: Visitor) -> None:
        """A connection is ready for its request."""

    def visitor_left(self, visitor: Visitor) -> None:
        """A connection ended without having become a leg."""

    def visitor_became(self, visitor: Visitor, leg: Leg) -> None:
        """A connection is a leg from now on."""

    def leg_left(self, leg: Leg, ticket: Ticket) -> None:
        """A leg's socket is closed."""


class Visitor(asyncio.Protocol):
    """Reads one request within the owner's bounds, and answers it."""

    def __init__(self, owner: VisitorOwner, ticket: Ticket) -> None:
        self.ticket = ticket
        self._owner = owner
        self._reader = HeadReader()
        self._early = b""
        self._answered = False
        self._unread = 0.0
        self._deadline = asyncio.get_running_loop().call_later(
            owner.limits.request_timeout, self._run_out_of_time
        )
        self._transport: asyncio.Transport | None = None
        self._site = owner.sites.default
        self._is_named_by_tls = False

    @property
    def arrived(self) -> bool:
        """Whether there is a connection for the request, encrypted if it must be."""
        return self._transport is not None

    def arrive(self, transport: asyncio.Transport) -> None:
        """Begin: what the visitor sends from now on, or has sent already, is its request."""
        self._transport = transport
        ssl_object = transport.get_extra_info("ssl_object")
        # Behind TLS the name that was asked for there counts, so that one host never reveals another.
        self._is_named_by_tls = ssl_object is not None
        if ssl_object is not None:
            self._site = self._owner.sites.of(asked_name(ssl_object))
        self._owner.visitor_came(self)
        if self._early:
            self.data_received(self._early)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._owner.visitor_left(self)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            self._early += data  # in one piece with the end of the TLS handshake
            return
        if self._answered:
            self._thrown_away(len(data))
            return
        try:
            whole = self._reader.feed(data)
            if whole is None:
                self._reader.check_request_start()
            else:
                head, rest = whole
                self._request_received(parse_request(head), rest)
        except PeerError as error:
            self._owner.refuse(self.ticket.peer, error.reason)
            self._serve(self._reader.received, self._site.refuse(_REFUSALS[error.reason]))

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    # --- requests -----------------------------------------------------------------------------------

    def _request_received(self, request: HttpRequest, rest: bytes) -> None:
        owner = self._owner
        ticket = self.ticket
        if not self._is_named_by_tls:
            self._site = owner.sites.of(_host_of(request))
        origin = owner.admission.origin(ticket.peer, request.values("x-forwarded-for"))
        refusal = self._charge(origin)
        if refusal is not None:
            owner.refuse(origin, refusal)
            self._answer(self._site.refuse(HTTPStatus.SERVICE_UNAVAILABLE))
            return
        if request.wants_websocket:
            websocket = self._upgrade(request) if request.target in owner.paths else None
            if websocket is not None:
                self._become_leg(websocket, request, rest)
                return
            owner.refuse(ticket.peer, "upgrade-refused")
        else:
            owner.refuse(ticket.peer, "http-without-upgrade")
        owner.counters.count("site-answers")
        length = request.body_length
        unread = math.inf if length is None else length - len(rest)
        head = passed_on(request, origin, is_secure=self._is_named_by_tls)
        self._serve(head + rest, self._site.answer(request.method, request.target), unread=unread)

    def _charge(self, origin: IpAddress) -> str | None:
        """Charge the client behind a proxy of ours; return the bound that it has reached."""
        admission = self._owner.admission
        if admission.is_trusted(origin):
            return None
        if origin != self.ticket.peer:
            refusal = admission.arrive(origin, self._owner.clock())
            if refusal is not None:
                return refusal
        return None if self.ticket.charge(origin) else "peer-limit"

    def _upgrade(self, request: HttpRequest) -> ServerProtocol | None:
        """Let websockets judge the handshake and write its answer; None when it is not a valid one."""
        websocket = ServerProtocol(max_size=MAX_RECORD, logger=WEBSOCKET_LOGGER)
        websocket.receive_data(request.raw)
        events = websocket.events_received()
        if not events or not isinstance(events[0], UpgradeRequest):
            return None
        response = websocket.accept(events[0])
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            return None
        if self._site.server:
            response.headers = Headers([("Server", self._site.server), *response.headers.raw_items()])
        websocket.send_response(response)
        return websocket

    def _become_leg(self, websocket: ServerProtocol, request: HttpRequest, rest: bytes) -> None:
        assert self._transport is not None
        owner = self._owner
        self._deadline.cancel()
        self._transport.write(b"".join(websocket.data_to_send()))
        leg = Leg(
            websocket,
            self._transport,
            peer=str(self.ticket.peer),
            clock=owner.clock,
            lost=partial(owner.leg_left, ticket=self.ticket),
        )
        owner.visitor_became(self, leg)
        leg.open(owner.paths[request.target](leg, self._prove), rest)

    def _prove(self) -> None:
        self.ticket.prove(self._owner.clock())

    # --- answers ------------------------------------------------------------------------------------

    def _serve(self, sent: bytes, response: bytes, *, unread: float = 0.0) -> None:
        """Hand the visitor and what it ``sent`` to the web server, if there is one, or answer it here."""
        target = self._owner.fallback
        if target is None:
            self._answer(response, unread=unread)
            return
        assert self._transport is not None
        self._answered = True
        self._deadline.cancel()
        self._transport.pause_reading()
        self._owner.run(self._hand_over(self._transport, sent, target))

    async def _hand_over(self, transport: asyncio.Transport, sent: bytes, target: tuple[str, int]) -> None:
        try:
            await hand_over(transport, sent, target, partial(self.connection_lost, None))
        except OSError:  # every timeout is one
            self._owner.refuse(self.ticket.peer, "fallback-failed")
            transport.resume_reading()
            self._answer(self._site.refuse(HTTPStatus.BAD_GATEWAY))
        else:
            self._owner.counters.count("fallback-answers")

    def _answer(self, response: bytes, *, unread: float = 0.0) -> None:
        """Send ``response`` and end the connection in an order that lets the visitor read it.

        ``unread`` are the bytes of its request that are still to come: TLS cannot end one way alone, and what
        comes after its end is answered with RST, which discards the response of a client that still sends.
        """
        assert self._transport is not None
        self._answered = True
        self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(LINGER_TIMEOUT, self.abort)
        self._transport.write(response)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        elif unread > 0:
            self._unread = unread
        else:
            self._transport.close()

    def _thrown_away(self, count: int) -> None:
        """Count ``count`` bytes that came after the answer."""
        if self._unread > 0:
            self._unread -= count
            if self._unread <= 0:
                assert self._transport is not None
                self._transport.close()

    def _run_out_of_time(self) -> None:
        if not self.arrived:
            return  # the TLS handshake has the same deadline, and its own way to fail
        self._owner.refuse(self.ticket.peer, "request-timeout")
        if self._reader.begun:
            self._serve(self._reader.received, self._site.refuse(HTTPStatus.REQUEST_TIMEOUT))
        else:
            self.abort()


def _host_of(request: HttpRequest) -> str | None:
    """Return the host that a request names, without its port."""
    values = request.values("host")
    return re.sub(r":[0-9]*$", "", values[0]) if values else None
