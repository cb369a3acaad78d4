"""The routes of a client: the queries and commands of `htvpn` (docs/CONTROL.md)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Protocol, TypedDict
from urllib.parse import parse_qs

from halftunnel_vpn.config.schema import MAX_TEXT
from halftunnel_vpn.control.control_service import Handler, Response
from halftunnel_vpn.control.flow_schema import FLOWS_PATH, FlowList, as_seen_by
from halftunnel_vpn.control.json_routes import guarded_all, json_answer, json_body
from halftunnel_vpn.control.peer import GROUP
from halftunnel_vpn.control.profile_store import ProfileStore
from halftunnel_vpn.control.request_reader import Request
from halftunnel_vpn.control.ring import MAX_WAIT
from halftunnel_vpn.control.status_schema import STATUS_PATH, ExitOverview, Status
from halftunnel_vpn.control.text_file import decode
from halftunnel_vpn.errors import UsageError

MAX_PORTAL = 3600.0
"""The longest time in seconds for which a captive portal may be reached."""

MAX_AUDIT = 86_400.0
"""The longest time in seconds for which records are written down."""

MAX_PROFILE = MAX_TEXT
"""Bytes of a request's body. The longest one is a profile (``max_body`` of the daemon's ControlService)."""


class Event(TypedDict):
    """A change of state, or a failure that changed no state."""

    serial: int
    """Increases by one, from 1, in each process."""
    time: float
    """Seconds since 1970 (UTC)."""
    state: str
    """The state after the event."""
    sentence: str | None
    """What happened, for people; None if the state says everything."""


class LogLine(TypedDict):
    """One line of the log, at the level that is kept. It has no destination, name or key."""

    serial: int
    time: float
    level: str
    logger: str
    message: str
    fields: dict[str, object]
    """Values that connect lines: ``session``, ``stream``, ``leg``, ``direction``."""


class SupervisorPort(Protocol):
    """What runs the tunnel, in the daemon or in the foreground, as its routes use it.

    A command raises a HalfTunnelError with one sentence if it cannot begin. It returns when it has begun
    (``repair``: when it is done). Its outcome is reported by ``events`` and ``status``.
    """

    def status(self) -> Status:
        """Return the present status."""
        ...

    async def up(self, profile: str | None, *, exit: str | None = None, fastest: bool = False) -> None:
        """Connect through the profile of that name; None means the active one.

        ``exit`` is the only exit that may be used, ``fastest`` asks for the one with the lowest round trip;
        otherwise priority decides. If a tunnel is up, change to another profile or exit, or do nothing for
        the same ones. Another exit of the tunnel that is up is in use when this returns.
        """
        ...

    async def switch(self, *, exit: str | None = None, fastest: bool = False) -> None:
        """Use another exit of the tunnel that is up, as ``up`` does. Raises when nothing is up."""
        ...

    async def exits(self, profile: str | None) -> list[ExitOverview]:
        """Measure the exits of a profile; None: of the one that is up, or the active one."""
        ...

    async def down(self) -> None:
        """Disconnect and restore the host (a kill switch ``always`` stays). Do nothing if already down."""
        ...

    async def reconnect(self) -> None:
        """Reopen every leg. Raises when nothing is up."""
        ...

    async def portal(self, seconds: float) -> None:
        """Open what a captive portal needs for ``seconds``; 0 closes it."""
        ...

    async def reload(self) -> None:
        """Read the profile again and apply its changes."""
        ...

    async def repair(self, *, lift: bool) -> list[str]:
        """Undo what an earlier process left on this host; return what was restored, a sentence each.

        ``lift``: also lift a kill switch; no start enforces it again until the next ``up``. Raises when a
        tunnel is up.
        """
        ...

    async def adopt(self, pid: int, programs: str) -> None:
        """Add ``pid`` and its future children to the list ``programs``: ``excluded`` or ``only``."""
        ...

    async def record(self, seconds: float) -> str:
        """Write down every record on the paths for ``seconds``; return the file. Raises if nothing is up."""
        ...

    async def flows(self) -> FlowList:
        """Return the open flows with the programs that own them."""
        ...

    async def events(self, since: int, wait: float) -> list[Event]:
        """Return events after serial ``since``, oldest first; wait up to ``wait`` seconds for one."""
        ...


class DaemonPort(SupervisorPort, Protocol):
    """The daemon as its routes use it."""

    async def logs(self, since: int, wait: float) -> list[LogLine]:
        """Return the kept lines after serial ``since``, oldest first; wait like ``events``."""
        ...


def supervisor_routes(supervisor: SupervisorPort, *, group: str = GROUP) -> dict[tuple[str, str], Handler]:
    """Return the routes of every client, for root, the client's own user and members of ``group``."""
    return guarded_all(_commands(supervisor) | _events(supervisor), group)


def daemon_routes(
    daemon: DaemonPort, profiles: ProfileStore, *, group: str = GROUP
) -> dict[tuple[str, str], Handler]:
    """Return all routes of the daemon, for root and members of ``group``."""
    own = guarded_all(_logs(daemon) | _profiles(profiles), group)
    return supervisor_routes(daemon, group=group) | own


def _commands(daemon: SupervisorPort) -> dict[tuple[str, str], Handler]:
    async def status(_request: Request) -> Response:
        return json_answer(daemon.status())

    async def up(request: Request) -> Response:
        body = json_body(request)
        name = body.get("profile")
        if name is not None and not isinstance(name, str):
            raise UsageError("profile must be a name")
        exit, fastest = _choice(body)
        await daemon.up(name, exit=exit, fastest=fastest)
        return _begun()

    async def switch(request: Request) -> Response:
        exit, fastest = _choice(json_body(request))
        await daemon.switch(exit=exit, fastest=fastest)
        return _begun()

    async def exits(request: Request) -> Response:
        name = parse_qs(request.query).get("profile", [None])[-1]
        return json_answer({"exits": await daemon.exits(name)})

    async def down(_request: Request) -> Response:
        await daemon.down()
        return _begun()

    async def reconnect(_request: Request) -> Response:
        await daemon.reconnect()
        return _begun()

    async def portal(request: Request) -> Response:
        seconds = json_body(request).get("seconds", 300.0)
        if not _is_number(seconds) or not 0 <= seconds <= MAX_PORTAL:
            raise UsageError(f"seconds must be a number from 0 to {MAX_PORTAL:g}")
        await daemon.portal(float(seconds))
        return _begun()

    async def reload(_request: Request) -> Response:
        await daemon.reload()
        return _begun()

    async def repair(request: Request) -> Response:
        lift = json_body(request).get("lift", False)
        if not isinstance(lift, bool):
            raise UsageError("lift must be true or false")
        return json_answer({"repaired": await daemon.repair(lift=lift)})

    async def adopt(request: Request) -> Response:
        programs = json_body(request).get("list")
        if programs not in ("excluded", "only"):
            raise UsageError('list must be "excluded" or "only"')
        assert request.peer is not None  # an unknown peer has been refused
        await daemon.adopt(request.peer.pid, programs)
        return json_answer({"pid": request.peer.pid})

    async def audit(request: Request) -> Response:
        seconds = json_body(request).get("seconds", 600.0)
        if not _is_number(seconds) or not 0 < seconds <= MAX_AUDIT:
            raise UsageError(f"seconds must be a number above 0, to {MAX_AUDIT:g}")
        return json_answer({"file": await daemon.record(float(seconds))})

    return {
        ("POST", "/v1/audit"): audit,
        ("POST", "/v1/programs"): adopt,
        ("GET", STATUS_PATH): status,
        ("POST", "/v1/up"): up,
        ("POST", "/v1/switch"): switch,
        ("GET", "/v1/exits"): exits,
        ("POST", "/v1/down"): down,
        ("POST", "/v1/reconnect"): reconnect,
        ("POST", "/v1/portal"): portal,
        ("POST", "/v1/reload"): reload,
        ("POST", "/v1/repair"): repair,
    }


def _events(daemon: SupervisorPort) -> dict[tuple[str, str], Handler]:
    async def events(request: Request) -> Response:
        since, wait = _poll(request, default_wait=MAX_WAIT)
        return json_answer({"events": await daemon.events(since, wait)})

    async def flows(request: Request) -> Response:
        return json_answer(as_seen_by(request.peer, await daemon.flows()))

    return {("GET", "/v1/events"): events, ("GET", FLOWS_PATH): flows}


def _logs(daemon: DaemonPort) -> dict[tuple[str, str], Handler]:
    async def logs(request: Request) -> Response:
        since, wait = _poll(request, default_wait=0.0)
        return json_answer({"lines": await daemon.logs(since, wait)})

    return {("GET", "/v1/logs"): logs}


def _profiles(store: ProfileStore) -> dict[tuple[str, str], Handler]:
    async def entries(_request: Request) -> Response:
        found = await asyncio.to_thread(store.entries)
        return json_answer({"profiles": [entry._asdict() for entry in found]})

    async def put(request: Request) -> Response:
        text = decode(request.body, "the profile")
        replace = parse_qs(request.query).get("replace", ["yes"])[-1] != "no"
        await asyncio.to_thread(store.put, request.captured, text, replace=replace)
        return json_answer({"profile": request.captured})

    async def add_exit(request: Request) -> Response:
        asked = parse_qs(request.query)
        other, keep = decode(request.body, "the profile"), asked.get("keep", ["yes"])[-1] != "no"
        exit = asked.get("exit", [None])[-1]
        await asyncio.to_thread(store.add_exit, request.captured, other, exit=exit, keep=keep)
        return json_answer({"profile": request.captured})

    async def delete(request: Request) -> Response:
        await asyncio.to_thread(store.remove, request.captured)
        return json_answer({"profile": request.captured})

    async def use(request: Request) -> Response:
        await asyncio.to_thread(store.use, request.captured)
        return json_answer({"profile": request.captured})

    return {
        ("GET", "/v1/profiles"): entries,
        ("PUT", "/v1/profiles/*"): put,
        ("DELETE", "/v1/profiles/*"): delete,
        ("POST", "/v1/profiles/*/use"): use,
        ("POST", "/v1/profiles/*/exits"): add_exit,
    }


def _choice(body: Mapping[str, object]) -> tuple[str | None, bool]:
    """Return which exit a command names, and whether it asks for the fastest. Raises UsageError."""
    exit, fastest = body.get("exit"), body.get("fastest", False)
    if exit is not None and not isinstance(exit, str):
        raise UsageError("exit must be a name")
    if not isinstance(fastest, bool):
        raise UsageError("fastest must be true or false")
    return exit, fastest


def _begun() -> Response:
    return json_answer({"begun": True}, 202)


def _poll(request: Request, *, default_wait: float) -> tuple[int, float]:
    """Return ``since`` and ``wait`` of the query. Raises UsageError."""
    asked = parse_qs(request.query)
    try:
        since = int(asked.get("since", ["0"])[-1][:20])
        wait = float(asked.get("wait", [str(default_wait)])[-1][:20])
    except ValueError:
        raise UsageError("since and wait must be numbers") from None
    if since < 0 or not 0 <= wait <= MAX_WAIT:
        raise UsageError(f"since must not be negative, and wait be from 0 to {MAX_WAIT:g} seconds")
    return since, wait


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
