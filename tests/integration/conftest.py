"""A small daemon behind the real routes: it keeps what it was told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from halftunnel_vpn.control.control_service import ControlService
from halftunnel_vpn.control.daemon_routes import MAX_PROFILE, Event, LogLine, daemon_routes
from halftunnel_vpn.control.flow_schema import FlowList, FlowStatus
from halftunnel_vpn.control.profile_store import ProfileStore
from halftunnel_vpn.control.ring import Ring
from halftunnel_vpn.control.status_schema import ExitOverview, ProtectionStatus, Status
from halftunnel_vpn.errors import HostError


class SmallDaemon:
    """Implements DaemonPort: connects at once, or fails as the test wants."""

    def __init__(self, profiles: ProfileStore) -> None:
        self.profiles = profiles
        self.told: list[object] = []
        self.failure: str | None = None
        self.hangs = False
        self.ring: Ring[tuple[float, str, str | None]] = Ring(16)
        self.lines: Ring[str] = Ring(4)
        self.state = "disconnected"
        self.profile: str | None = None
        self.open_flows: list[FlowStatus] = []
        self.more: dict[str, object] = {}
        self.polled = asyncio.Event()

    def become(self, state: str, sentence: str | None = None) -> None:
        self.state = state
        self.ring.append((time.time(), state, sentence))

    def status(self) -> Status:
        return Status(  # type: ignore[misc]
            version="0",
            state=self.state,
            since=time.time(),
            sentence=self.failure,
            profile=self.profile,
            pid=1,
            uptime=1.0,
            device=None,
            session=0,
            round_trip=None,
            lost=[],
            flows={},
            protection=ProtectionStatus(kill_switch="on", active=True, verified=True, inbound=True),
            dropped={},
            **self.more,
        )

    async def switch(self, *, exit: str | None = None, fastest: bool = False) -> None:
        if self.state == "disconnected":
            raise HostError("nothing is up; 'htvpn up' connects")
        if exit == "gone":
            raise HostError("the exit gone cannot be reached; home stays in use")
        self.told.append(("switch", exit, fastest))

    async def exits(self, profile: str | None) -> list[ExitOverview]:
        self.told.append(("exits", profile))
        return [ExitOverview(name="home", state="ready", round_trip=0.0205, sentence=None)]

    async def up(self, profile: str | None, *, exit: str | None = None, fastest: bool = False) -> None:
        name = self.profiles.resolve(profile)
        self.told.append(("up", name, exit, fastest) if exit or fastest else ("up", name))
        self.profile = name
        self.become("connecting")
        if not self.hangs:
            self.become("blocked" if self.failure else "connected", self.failure)

    async def down(self) -> None:
        self.told.append("down")
        self.become("disconnecting")
        self.become("disconnected")

    async def reconnect(self) -> None:
        if self.state == "disconnected":
            raise HostError("nothing is up; 'htvpn up' connects")
        self.told.append("reconnect")

    async def portal(self, seconds: float) -> None:
        self.told.append(("portal", seconds))

    async def reload(self) -> None:
        self.told.append("reload")

    async def repair(self, *, lift: bool) -> list[str]:
        if lift:
            self.told.append("lift")
        return ["the route table 18516 was removed"]

    async def adopt(self, pid: int, programs: str) -> None:
        self.told.append((pid, programs))

    async def record(self, seconds: float) -> str:
        self.told.append(("record", seconds))
        return "/var/lib/halftunnel/audit.jsonl"

    async def flows(self) -> FlowList:
        return FlowList(flows=[FlowStatus(**flow) for flow in self.open_flows], left_out=0)

    async def events(self, since: int, wait: float) -> list[Event]:
        self.polled.set()
        return [
            Event(serial=serial, time=when, state=state, sentence=sentence)
            for serial, (when, state, sentence) in await self.ring.read(since, wait)
        ]

    async def logs(self, since: int, wait: float) -> list[LogLine]:
        return [
            LogLine(serial=serial, time=0.0, level="info", logger="x", message=message, fields={"session": 1})
            for serial, message in await self.lines.read(since, wait)
        ]


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(tmp_path / "profiles")


@pytest.fixture(scope="session")
def profile_text() -> str:
    """A whole profile."""
    return (Path(__file__).parents[2] / "configs" / "client.toml").read_text()


Served = Callable[..., AbstractAsyncContextManager[SmallDaemon]]


@pytest.fixture
def serve_daemon(store: ProfileStore, tmp_path: Path) -> Served:
    """Serve a SmallDaemon at ``control.sock``; ``group`` are those who may beside root."""

    @asynccontextmanager
    async def serve(*, group: str = "halftunnel"):
        daemon = SmallDaemon(store)
        service = ControlService(daemon_routes(daemon, store, group=group), max_body=MAX_PROFILE)
        path = tmp_path / "control.sock"
        await service.serve_unix(str(path))
        try:
            yield daemon
        finally:
            await service.close()

    return serve
