"""The requests on the daemon's socket, and the contents of its own files."""

from __future__ import annotations

import asyncio
import atexit
import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from halftunnel_vpn.control.control_service import ControlService
from halftunnel_vpn.control.daemon_routes import MAX_AUDIT, MAX_PORTAL, MAX_PROFILE, daemon_routes
from halftunnel_vpn.control.flow_schema import FlowList
from halftunnel_vpn.control.peer import Peer
from halftunnel_vpn.control.profile_store import ProfileStore
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.session.intervals import MAX_DOMAINS, IntervalTable

MAX_ANSWERS = 4096
"""Answers that the shortest requests of one input can cause."""

ROOT = Peer(1, 0, 0, frozenset())

_directory = Path(tempfile.mkdtemp(prefix="fuzzed-profiles-"))
atexit.register(shutil.rmtree, _directory, ignore_errors=True)


class _Daemon:
    """Implements DaemonPort: checks its arguments, and refuses every other command."""

    def __init__(self) -> None:
        self.commands = 0

    def _told(self) -> None:
        self.commands += 1
        if self.commands & 1:
            raise HostError("not now")

    def status(self) -> dict[str, object]:
        return {"state": "disconnected"}

    async def up(self, profile: str | None, *, exit: str | None = None, fastest: bool = False) -> None:
        assert profile is None or isinstance(profile, str)
        await self.switch(exit=exit, fastest=fastest)

    async def switch(self, *, exit: str | None = None, fastest: bool = False) -> None:
        assert exit is None or isinstance(exit, str)
        assert isinstance(fastest, bool)
        self._told()

    async def exits(self, profile: str | None) -> list[dict[str, object]]:
        assert profile is None or isinstance(profile, str)
        self._told()
        return []

    async def down(self) -> None:
        self._told()

    async def reconnect(self) -> None:
        self._told()

    async def portal(self, seconds: float) -> None:
        assert 0 <= seconds <= MAX_PORTAL
        self._told()

    async def reload(self) -> None:
        self._told()

    async def repair(self, *, lift: bool) -> list[str]:
        assert isinstance(lift, bool)
        self._told()
        return ["nothing"]

    async def adopt(self, pid: int, programs: str) -> None:
        assert pid == ROOT.pid and programs in ("excluded", "only")
        self._told()

    async def record(self, seconds: float) -> str:
        assert 0 < seconds <= MAX_AUDIT
        self._told()
        return "file"

    async def events(self, since: int, wait: float) -> list[object]:
        assert since >= 0 and wait >= 0
        return []

    async def flows(self) -> FlowList:
        return FlowList(flows=[], left_out=0)

    async def logs(self, since: int, wait: float) -> list[object]:
        assert since >= 0 and wait >= 0
        return []


class _Writer:
    """What the control service writes to."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.answers = 0

    def write(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 ")
        self.written += data
        self.answers += 1

    async def drain(self) -> None:
        pass


def daemon_requests(data: bytes) -> None:
    """Requests of somebody who may, one behind the other, to the daemon's routes and a real store."""
    store = ProfileStore(_directory / "profiles")

    async def converse() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        writer = _Writer()
        # Type: ignore[arg-type].
        service = ControlService(daemon_routes(_Daemon(), store), max_body=MAX_PROFILE)
        await service._converse(reader, writer, ROOT)  # type: ignore[arg-type]
        assert writer.answers <= MAX_ANSWERS
        assert b"HTTP/1.1 500" not in writer.written

    asyncio.run(converse())
    assert {path.name for path in _directory.iterdir()} <= {"profiles"}, "nothing outside of its directory"


def learnt_intervals(data: bytes) -> None:
    """The file of learnt keepalive intervals, whatever has become of it."""
    with suppress(ValueError, RecursionError):
        stored = json.loads(data)
        table = IntervalTable()
        refused = table.load(stored, 1e9)
        exported = table.export()
        assert refused >= 0 and len(exported) <= MAX_DOMAINS
        again = IntervalTable()
        assert not again.load(json.loads(json.dumps(exported)), 1e9)
        assert again.export() == exported
        for domain in exported:
            assert 0 < table.interval(domain) < 1e6
