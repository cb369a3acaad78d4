"""The routes of an exit: what `htvpn server` may query and change (docs/OPERATE.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol, TypedDict

from halftunnel_vpn.control.control_service import Handler, Response
from halftunnel_vpn.control.json_routes import guarded_all, json_answer, json_body
from halftunnel_vpn.control.peer import EXIT_GROUP
from halftunnel_vpn.control.request_reader import Request
from halftunnel_vpn.errors import UsageError

EXIT_STATUS_PATH = "/v1/server/status"
CLIENTS_PATH = "/v1/server/clients"
SESSIONS_PATH = "/v1/server/sessions"

LIMITS = ("expires", "quota", "rate")
"""Keys of a client that hold text; with ``disabled`` they may be changed."""


class ClientRow(TypedDict):
    """One client. Bytes are those between the exit and destinations; ``received`` came from there."""

    name: str
    online: bool
    """Whether it has a leg."""
    since: float | None
    """When its oldest connected session began, in seconds since 1970; None while it is not connected."""
    last_seen: float | None
    """When it was connected last; None if it never was."""
    sessions: int
    legs: int
    streams: int
    sent_rate: float
    """Bytes a second, over the last second."""
    received_rate: float
    today: list[int]
    """Bytes sent and received today (UTC)."""
    month: list[int]
    """The same of this month."""
    refused: str | None
    """``disabled``, ``expired`` or ``quota used up``; None when it may connect."""
    expires: str | None
    quota: int | None
    """Bytes of a month, both directions together."""
    rate: float | None
    """Bytes a second, for each direction."""


class SessionRow(TypedDict):
    """One session. ``id`` is the correlation id that the logs of both ends use."""

    id: str
    client: str
    since: float
    legs: list[str]
    """Direction and peer of each, as the exit sees it."""
    streams: int
    round_trip: float


class InvitationMade(TypedDict):
    """A new invitation. The link is a secret until it is used."""

    name: str
    link: str
    expires: int
    """Seconds since 1970."""


class ExitReport(TypedDict):
    """The exit as a whole."""

    version: str
    directory: str
    uptime: float
    problems: list[str]
    """As ``/readyz`` lists them."""
    clients: int
    online: int
    sessions: int
    legs: dict[str, int]
    streams: int
    memory: list[int]
    """Bytes that clients hold, and may hold."""
    dropped: dict[str, int]


class ExitPort(Protocol):
    """An exit as its routes see it. Methods raise a HalfTunnelError with one sentence."""

    async def report(self) -> ExitReport:
        """Return how it does."""
        ...

    def clients(self) -> list[ClientRow]:
        """Return every client of the list, by name."""
        ...

    def sessions(self) -> list[SessionRow]:
        """Return every session, the oldest first."""
        ...

    def change_client(self, name: str, changes: Mapping[str, str | bool | None]) -> ClientRow:
        """Write other values to the file of a client and apply them; no changes: read the list again."""
        ...

    def invite(self, name: str, validity: str) -> InvitationMade:
        """Make an invitation that is good for ``validity``, such as ``1h``."""
        ...


def exit_routes(exit_: ExitPort, *, group: str = EXIT_GROUP) -> dict[tuple[str, str], Handler]:
    """Return the routes, for root, the exit's own user and members of ``group``."""

    async def status(_request: Request) -> Response:
        return json_answer(await exit_.report())

    async def clients(_request: Request) -> Response:
        return json_answer({"clients": exit_.clients()})

    async def sessions(_request: Request) -> Response:
        return json_answer({"sessions": exit_.sessions()})

    async def change(request: Request) -> Response:
        changes = client_changes(json_body(request))
        await asyncio.sleep(0)  # a long list of changes must not keep others waiting
        return json_answer(exit_.change_client(request.captured, changes))

    routes: dict[tuple[str, str], Handler] = {
        ("GET", EXIT_STATUS_PATH): status,
        ("GET", CLIENTS_PATH): clients,
        ("GET", SESSIONS_PATH): sessions,
        ("POST", f"{CLIENTS_PATH}/*"): change,
    }
    return guarded_all(routes, group)


def client_changes(asked: Mapping[str, object]) -> dict[str, str | bool | None]:
    """Return the changes of a request. Raises UsageError."""
    changes: dict[str, str | bool | None] = {}
    for key, value in asked.items():
        if key == "disabled" and isinstance(value, bool):
            changes[key] = value
        elif key in LIMITS and (value is None or isinstance(value, str)):
            changes[key] = value
        else:
            raise UsageError(f"disabled must be true or false, and {', '.join(LIMITS)} be text or null")
    return changes
