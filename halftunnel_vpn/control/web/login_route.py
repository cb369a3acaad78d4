"""The route of the control socket that returns a token for the web page: `htvpn server web`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypedDict

from halftunnel_vpn.config.net import Endpoint
from halftunnel_vpn.control.control_service import Handler, Response
from halftunnel_vpn.control.json_routes import guarded_all, json_answer
from halftunnel_vpn.control.peer import EXIT_GROUP
from halftunnel_vpn.control.request_reader import Request
from halftunnel_vpn.control.web.login import TOKEN_LIFE, Login
from halftunnel_vpn.errors import HostError

WEB_LOGIN_PATH: Final = "/v1/server/web-login"


class WebLogin(TypedDict):
    """A new token, and where the page is."""

    token: str
    seconds: float
    """For which it is good."""
    host: str | None
    port: int | None
    socket: str | None
    """The Unix socket; None when the page is at an address."""


def web_login_route(
    login: Login, place: Endpoint | str | None, clock: Callable[[], float], *, group: str = EXIT_GROUP
) -> dict[tuple[str, str], Handler]:
    """Return the route, for those who may use the control socket. ``place`` is None without a page."""

    async def issue(_request: Request) -> Response:
        if place is None:
            raise HostError(
                'this exit serves no web page: write [web] listen = "127.0.0.1:8750" in its server.toml, '
                "and restart it"
            )
        at = place if isinstance(place, Endpoint) else None
        answer = WebLogin(
            token=login.issue(clock()),
            seconds=TOKEN_LIFE,
            host=None if at is None else at.host,
            port=None if at is None else at.port,
            socket=place if isinstance(place, str) else None,
        )
        return json_answer(answer)

    return guarded_all({("POST", WEB_LOGIN_PATH): issue}, group)
