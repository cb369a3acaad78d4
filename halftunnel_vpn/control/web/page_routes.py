"""What the web page may ask and change: the same as `htvpn server`, through the same ``ExitPort``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qs, unquote

from halftunnel_vpn.control import qr_code
from halftunnel_vpn.control.control_service import (
    Handler,
    Response,
    Routes,
    ServicePolicy,
    failure,
    match,
)
from halftunnel_vpn.control.exit_routes import ExitPort, client_changes
from halftunnel_vpn.control.json_routes import json_answer, json_body
from halftunnel_vpn.control.request_reader import Request
from halftunnel_vpn.control.web.live_feed import LiveFeed
from halftunnel_vpn.control.web.login import SESSION_LIFE, Login, WebSession, WrongToken
from halftunnel_vpn.control.web.page_files import file_routes
from halftunnel_vpn.control.web.request_guard import POLICY_HEADERS, host_of, is_of_this_page, port_of
from halftunnel_vpn.errors import ConfigError, HalfTunnelError, UsageError

API: Final = "/api/"

MAX_WEB_BODY: Final = 4096
"""Bytes of the body of a request."""

CODE_HEADER: Final = b"x-htvpn-code"
"""The header with the code of the session. No page of another origin can send it without our consent."""

EVENT_STREAM: Final = "text/event-stream"

_AGAIN: Final = "run 'htvpn server web' on the exit, and open the address that it prints"


class HistoryPort(Protocol):
    """The rates of the last hour (``server/accounting/rate_history.py``)."""

    def of(self, client: str | None) -> dict[str, Any]:
        """Return those of a client, of all together for None: ``step``, ``sent`` and ``received``."""
        ...


class PageContext(NamedTuple):
    """What the routes need."""

    exit_: ExitPort
    history: HistoryPort
    login: Login
    feed: LiveFeed
    clock: Callable[[], float]
    dropped: Callable[[str], None]
    """Called with the reason of each refusal: ``wrong-host``, ``foreign-origin``, ``wrong-token``,
    ``too-many-tries``, ``no-session``, ``bad-request``, ``no-such-path``."""


Answerer = Callable[[Request, WebSession], Awaitable[Response]]


def page_policy(context: PageContext, routes: Routes) -> ServicePolicy:
    """Return what holds for every request: its name for this page, its origin, and headers of the answer."""

    def check(request: Request) -> Response | None:
        host = host_of(request)
        if host is None:
            context.dropped("wrong-host")
            return failure(
                403, "this page answers only as localhost, 127.0.0.1 or [::1]; open it by one of these names"
            )
        if request.path.startswith(API) and not is_of_this_page(request, host):
            context.dropped("foreign-origin")
            return failure(403, "this request does not come from this page; open the page itself")
        found = match(routes, "GET" if request.method == "HEAD" else request.method, request.path)
        if found is None or found[0] is None:
            context.dropped("no-such-path")
        return None

    return ServicePolicy(check, POLICY_HEADERS, context.dropped)


def page_routes(context: PageContext) -> dict[tuple[str, str], Handler]:
    """Return the routes of the page. Raises HostError when its files are not there."""
    exit_ = context.exit_

    async def log_in(request: Request) -> Response:
        token = _body(request).get("token")
        try:
            granted = context.login.log_in(token if isinstance(token, str) else "", context.clock())
        except WrongToken as wrong:
            context.dropped(wrong.reason)
            if wrong.reason == "too-many-tries":
                return failure(429, f"too many wrong tokens; wait a minute, or {_AGAIN}")
            return failure(403, f"this token is wrong, or has been used, or is too old; {_AGAIN}")
        cookie = f"{_cookie_name(request)}={granted.cookie}; HttpOnly; SameSite=Strict; Path={API}"
        header = (b"Set-Cookie", f"{cookie}; Max-Age={SESSION_LIFE:.0f}".encode())
        return json_answer({"code": granted.code})._replace(headers=(header,))

    async def log_out(request: Request, session: WebSession) -> Response:
        context.login.log_out(session)
        gone = f"{_cookie_name(request)}=; HttpOnly; SameSite=Strict; Path={API}; Max-Age=0"
        return json_answer({})._replace(headers=((b"Set-Cookie", gone.encode()),))

    async def status(_request: Request, _session: WebSession) -> Response:
        return json_answer(await exit_.report())

    async def history(request: Request, _session: WebSession) -> Response:
        names = parse_qs(request.query).get("client")
        return json_answer(context.history.of(names[0] if names else None))

    async def events(_request: Request, session: WebSession) -> Response:
        reader = context.feed.subscribe(lambda: _keep(context, session))
        if reader is None:
            return failure(503, "too many pages are open; close one, and load this one again")
        return Response(200, EVENT_STREAM, b"", source=reader)

    async def change(request: Request, _session: WebSession) -> Response:
        changes = client_changes(_body(request))
        return json_answer(exit_.change_client(unquote(request.captured), changes))

    async def invite(request: Request, _session: WebSession) -> Response:
        asked = _body(request)
        name, validity = asked.get("name"), asked.get("expires")
        if not isinstance(name, str) or not isinstance(validity, str):
            raise UsageError("name and expires must be text")
        made = exit_.invite(name, validity)
        return json_answer({**made, "code": qr_code.for_page(made["link"])})

    routes: dict[tuple[str, str], Handler] = {
        ("POST", f"{API}login"): _answering(context, log_in),
        **{
            (method, API + path): _answering(context, _protected(context, handler))
            for method, path, handler in (
                ("POST", "logout", log_out),
                ("GET", "status", status),
                ("GET", "history", history),
                ("GET", "events", events),
                ("POST", "clients/*", change),
                ("POST", "invitations", invite),
            )
        },
    }
    return routes | file_routes()


def _protected(context: PageContext, handler: Answerer) -> Handler:
    """Restrict ``handler`` to browsers that are logged in."""

    async def protected(request: Request) -> Response:
        code = request.headers.get(CODE_HEADER, b"").decode("latin-1")
        now = context.clock()
        found = (context.login.session_of(cookie, code, now) for cookie in _cookies(request))
        session = next(filter(None, found), None)
        if session is None:
            context.dropped("no-session")
            return failure(401, f"you are not logged in any more; {_AGAIN}")
        return await handler(request, session)

    return protected


def _answering(context: PageContext, handler: Handler) -> Handler:
    """Turn our own exceptions into answers with their sentence."""

    async def answering(request: Request) -> Response:
        try:
            return await handler(request)
        except (UsageError, ConfigError) as error:
            context.dropped("bad-request")
            return failure(400, str(error))
        except HalfTunnelError as error:
            return failure(409, str(error))

    return answering


def _keep(context: PageContext, session: WebSession) -> bool:
    """Return whether ``session`` goes on; an open page counts as its use."""
    now = context.clock()
    is_open = context.login.is_open(session, now)
    if is_open:
        session.used_at = now
    return is_open


def _body(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request. Raises UsageError."""
    kind = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise UsageError("the body must be JSON, with Content-Type: application/json")
    return json_body(request)


def _cookie_name(request: Request) -> str:
    """Return the name of the cookie. Cookies know no ports, and pages of two exits must not share one."""
    return f"htvpn_{port_of(host_of(request) or '')}"


def _cookies(request: Request) -> Iterator[str]:
    """Yield the values of our cookie, in the order of the header (RFC 6265, section 5.4).

    Browsers send cookies of every port of a host. Those of other programs may be anything, may break the
    grammar of section 4.1.1, and may have the name of ours.
    """
    wanted = _cookie_name(request)
    for pair in request.headers.get(b"cookie", b"").decode("latin-1").split(";"):
        name, _, value = pair.partition("=")
        if name.strip() == wanted:
            yield value.strip()
