"""What `htvpn top` asks for, and when: one status a second, flows every two, events and log as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from halftunnel_vpn.cli.top import async_requests
from halftunnel_vpn.control.flow_schema import FLOWS_PATH
from halftunnel_vpn.control.ring import MAX_WAIT
from halftunnel_vpn.control.status_schema import STATUS_PATH
from halftunnel_vpn.errors import HostError

STATUS_INTERVAL: Final = 1.0
"""Seconds between two statuses."""

FLOWS_INTERVAL: Final = 2.0
"""Seconds between two lists of flows."""

RETRY_INTERVAL: Final = 1.0
"""Seconds until the next request to a client that did not answer."""


class Viewer(Protocol):
    """Who shows what comes."""

    def status_arrived(self, status: Mapping[str, Any]) -> None:
        """Show a status."""

    def flows_arrived(self, listed: Mapping[str, Any]) -> None:
        """Show the open flows."""

    def lines_arrived(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Show further lines of the log."""

    def client_lost(self, sentence: str) -> None:
        """Show that the client does not answer. What arrives later says that it is back."""

    def no_log(self, sentence: str) -> None:
        """Show that this client has no log for others."""


class Feed:
    """Asks the control socket ``path`` for a viewer. :meth:`run` ends with its task."""

    def __init__(self, path: str, viewer: Viewer) -> None:
        self._path = path
        self._viewer = viewer
        self._going = asyncio.Event()
        self._going.set()
        # Set when a change of state was reported: the next status is due at once.
        self._changed = asyncio.Event()

    @property
    def is_paused(self) -> bool:
        """Whether nothing is asked for."""
        return not self._going.is_set()

    def pause(self) -> None:
        """Ask for nothing until :meth:`resume`."""
        self._going.clear()

    def resume(self) -> None:
        """Go on."""
        self._going.set()
        self._changed.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self._status, self._flows, self._events, self._log):
                tasks.create_task(self._again(work))

    async def _again(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._going.wait()
            try:
                await work()
            except HostError as error:
                if work == self._status:  # it speaks for the others
                    self._viewer.client_lost(str(error))
                await asyncio.sleep(RETRY_INTERVAL)

    async def _status(self) -> None:
        self._changed.clear()
        self._viewer.status_arrived(await async_requests.ask(self._path, "GET", STATUS_PATH))
        try:
            async with asyncio.timeout(STATUS_INTERVAL):
                await self._changed.wait()
        except TimeoutError:
            pass  # no change: it is time for the next status

    async def _flows(self) -> None:
        try:
            self._viewer.flows_arrived(await async_requests.ask(self._path, "GET", FLOWS_PATH))
        except async_requests.Unsupported:
            pass  # an older client: its table stays empty
        await asyncio.sleep(FLOWS_INTERVAL)

    async def _events(self) -> None:
        """Wait for changes of state. Those before the start are in the status."""
        told = await self._poll("/v1/events", 0, 0.0, "events")
        while True:
            since = told[-1]["serial"] if told else 0
            newer = await self._poll("/v1/events", since, MAX_WAIT, "events")
            if newer:
                told = newer
                self._changed.set()

    async def _log(self) -> None:
        since = 0
        try:
            while True:
                lines = await self._poll("/v1/logs", since, MAX_WAIT if since else 0.0, "lines")
                if not lines and not since:
                    await asyncio.sleep(RETRY_INTERVAL)
                if lines:
                    since = int(lines[-1]["serial"])
                    self._viewer.lines_arrived(lines)
                await self._going.wait()
        except async_requests.Unsupported:
            self._viewer.no_log("'htvpn up --foreground' writes its log to its own terminal")
            await asyncio.sleep(MAX_WAIT)

    async def _poll(self, target: str, since: int, wait: float, key: str) -> list[dict[str, Any]]:
        query = f"{target}?since={since}&wait={wait:g}"
        return list((await async_requests.ask(self._path, "GET", query, wait=wait))[key])
