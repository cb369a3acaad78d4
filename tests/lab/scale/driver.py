"""A process with many clients: ``python -m lab.scale.driver PORT PROFILE...``.

It reads one command a line (JSON) from standard input, and prints one answer a line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from halftunnel_vpn.client.userspace import UserspaceClient
from halftunnel_vpn.config.client import ClientProfile, parse_client
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HalfTunnelError
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.loop import run
from lab.scale.streams import ClientStreams, LostStreamError

AT_ONCE: Final = 16
"""Clients of a process that connect at the same time."""

ANSWER: Final = 1000
"""Bytes of the answer to a request."""

LOAD_INTERVAL: Final = 0.1
"""Seconds between two pieces of a client's load."""

SPEAK_INTERVAL: Final = 0.2
"""Seconds between two requests of a client that stays active."""

_POLL: Final = 0.02


class MeasuredClient:
    """One client: its connection and how long it was away."""

    def __init__(self, profile: ClientProfile, driver: Driver, port: int) -> None:
        self.counters = Counters()
        self.longest = 0.0
        self._since: float | None = None
        self._serving = asyncio.Event()
        self._port = port
        self._client = UserspaceClient(
            profile, driver, self.counters, make_proxy=self._streams, state_dir=None
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def streams(self) -> ClientStreams:
        """The streams of this client."""
        found = self._client.proxy
        assert isinstance(found, ClientStreams)
        return found

    @property
    def is_away(self) -> bool:
        """Whether the client is not connected now."""
        return not self._client.is_connected

    async def join(self) -> None:
        """Return when the client is connected. Raises HalfTunnelError."""
        self._task = asyncio.ensure_future(self._client.run())
        serving = asyncio.ensure_future(self._serving.wait())
        await asyncio.wait((self._task, serving), return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        if self._task.done():
            self._task.result()

    def record(self, directory: Path, seconds: float) -> Path:
        """Record what is sent and comes for ``seconds``; return the file, which is whole after them."""
        return self._client._connection.record(directory, seconds)

    def look(self, now: float) -> None:
        """Note whether the client is connected."""
        if not self.is_away:
            self._since = None
            return
        if self._since is None:
            self._since = now
        self.longest = max(self.longest, now - self._since)

    async def leave(self) -> None:
        """End the session."""
        self._client.stop()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _streams(self, opener: Any) -> ClientStreams:
        return ClientStreams(opener, self._port, self._serving.set)


class Clients:
    """All clients of this process, and what they are told to do."""

    def __init__(self, port: int, profiles: list[str]) -> None:
        self._port = port
        self._profiles = profiles
        self._driver = Driver(asyncio.get_running_loop())
        self._clients: list[MeasuredClient] = []
        self._watching: asyncio.Task[None] | None = None

    async def join(self) -> dict[str, Any]:
        """Connect all clients."""
        turn = asyncio.Semaphore(AT_ONCE)
        failures = 0

        async def one(text: str) -> MeasuredClient:
            nonlocal failures
            profile = parse_client(text)
            while True:
                async with turn:
                    client = MeasuredClient(profile, self._driver, self._port)
                    try:
                        await client.join()
                        return client
                    except* HalfTunnelError:
                        failures += 1
                await asyncio.sleep(random.random())

        began = time.monotonic()
        self._clients = await asyncio.gather(*map(one, self._profiles))
        return {"seconds": time.monotonic() - began, "failures": failures}

    async def open(self, streams: int) -> dict[str, Any]:
        """Open so many streams of each client, which stay open."""
        for start in range(0, len(self._clients), AT_ONCE):
            part = self._clients[start : start + AT_ONCE]
            await asyncio.gather(*(client.streams.keep(streams, ANSWER) for client in part))
        return {"streams": sum(client.streams.connections for client in self._clients)}

    async def requests(self, rate: float, seconds: float, loaded: int, load: float) -> dict[str, Any]:
        """Make ``rate`` requests a second, while ``loaded`` clients download ``load`` bytes a second each."""
        taken: list[float] = []
        failures = 0
        tasks = set()
        busy = [client.streams.kept[0] for client in self._clients[:loaded]]
        before = sum(stream.received for stream in busy)

        async def one(client: MeasuredClient) -> None:
            nonlocal failures
            try:
                taken.append(await client.streams.request(ANSWER))
            except LostStreamError:
                failures += 1

        pulls = [asyncio.create_task(_pull(stream, load)) for stream in busy]
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(began + (number + random.random()) / rate - time.monotonic())
            task = asyncio.create_task(one(random.choice(self._clients)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        took = time.monotonic() - began
        carried = sum(stream.received for stream in busy) - before
        for pull in pulls:
            pull.cancel()
        return {"taken": taken, "failures": failures, "bytes": carried, "seconds": took}

    async def speak(self, seconds: float, rest: float, directory: str) -> dict[str, Any]:
        """Keep every client active for ``seconds``; return the file that one records behind ``rest``."""

        async def one(client: MeasuredClient) -> None:
            await asyncio.sleep(random.random() * SPEAK_INTERVAL)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await client.streams.request(ANSWER)
                await asyncio.sleep(SPEAK_INTERVAL)

        speakers = asyncio.gather(*map(one, self._clients))
        await asyncio.sleep(rest)
        own = Path(tempfile.mkdtemp(dir=directory))  # files are named after the second
        file = self._clients[0].record(own, seconds - rest)
        await speakers
        await asyncio.sleep(SPEAK_INTERVAL)
        return {"file": str(file)}

    async def away(self) -> dict[str, Any]:
        """Return the longest absence of each client since the last call; the first one begins to watch."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        longest = [client.longest for client in self._clients]
        for client in self._clients:
            client.longest = 0.0
        absent = sum(client.is_away for client in self._clients)
        return {"longest": longest, "absent": absent}

    async def leave(self) -> dict[str, Any]:
        """End all sessions."""
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.gather(*(client.leave() for client in self._clients))
        self._driver.close()
        return {}

    async def _watch(self) -> None:
        while True:
            now = time.monotonic()
            for client in self._clients:
                client.look(now)
            await asyncio.sleep(_POLL)


async def _pull(stream: Any, rate: float) -> None:
    await asyncio.sleep(random.random() * LOAD_INTERVAL)
    while True:
        stream.ask_soon(int(rate * LOAD_INTERVAL))
        await asyncio.sleep(LOAD_INTERVAL)


async def _main(port: int, profiles: list[str]) -> None:
    clients = Clients(port, profiles)
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while True:
        line = await loop.run_in_executor(None, sys.stdin.readline)
        if not line:
            return
        command = json.loads(line)
        answer = await getattr(clients, command.pop("do"))(**command)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    _, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))
    run(_main(int(sys.argv[1]), [Path(file).read_text() for file in sys.argv[2:]]), nice=0)
