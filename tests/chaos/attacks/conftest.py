"""An exit in its own process, an honest client in this one, and an attacker in a third."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import secrets
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvloop

from halftunnel_vpn.client.connection import Connection, ConnectionOwner
from halftunnel_vpn.client.exits.exit_set import ExitSet
from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.client.legs.connector import Connector
from halftunnel_vpn.client.settings import dial_options
from halftunnel_vpn.config.client import parse_client
from halftunnel_vpn.config.exits import RoadConfig
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.keys import Direction, encode_key
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind
from halftunnel_vpn.transport.dial import DialOptions
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.leg_phase import LegPhase

HERE = Path(__file__).resolve().parent
UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM

SOURCE = """
import socket, threading
def pour(connection):
    data = bytes(1 << 20)
    try:
        while True:
            connection.sendall(data)
    except OSError:
        pass
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=pour, args=(server.accept()[0],), daemon=True).start()
"""
"""A destination that sends as fast as it is read."""


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _on(processor: int, *command: str, nice: int = 0, **options: Any) -> subprocess.Popen[str]:
    """Start ``command`` on one processor, so that nobody takes the exit's time but by asking the exit."""
    environment = {**os.environ, "ATTACKER_NICE": str(nice)}
    argv = ["taskset", "-c", str(processor), *command]
    return subprocess.Popen(argv, text=True, env=environment, **options)


@pytest.fixture(scope="module")
def processors() -> Iterator[tuple[int, int]]:
    """One processor for the exit, and one for everybody else (the same, where there is but one)."""
    ours = os.sched_getaffinity(0)
    first, second = min(ours), max(ours)
    os.sched_setaffinity(0, {second})
    yield first, second
    os.sched_setaffinity(0, ours)


class ExitUnderAttack:
    """`htvpn server run` with a client "laptop" and a client "insider"."""

    def __init__(self, directory: Path, processors: tuple[int, int]) -> None:
        self.directory = directory
        self.processors = processors
        self.ports = {road: free_port() for road in Direction}
        self.metrics_port = free_port()
        self.paths = {road: "/" + secrets.token_urlsafe(18) for road in Direction}
        self.log = directory / "log"
        urls = {road: f"wss://127.0.0.1:{self.ports[road]}{self.paths[road]}" for road in Direction}
        self._htvpn(
            "server", "init", "--dir", str(directory / "exit"),
            "--upstream", urls[UP], "--downstream", urls[DOWN],
            "--listen-upstream", f"127.0.0.1:{self.ports[UP]}",
            "--listen-downstream", f"127.0.0.1:{self.ports[DOWN]}",
            "--allow-egress", "127.0.0.0/8",
        )  # fmt: skip
        config = directory / "exit" / "server.toml"
        text = config.read_text()
        assert "[limits]" not in text
        config.write_text(
            text + '\n[limits]\nhandshake_timeout = "2s"\nmemory = "256MiB"\nlegs_per_client = 32\n'
        )
        self.profiles = {
            name: self._htvpn("server", "add-client", name, "--dir", str(directory / "exit"))
            for name in ("laptop", "insider")
        }
        stderr = self.log.open("w")
        self.process = _on(
            processors[0], sys.executable, "-m", "halftunnel_vpn.cli", "server", "run",
            "--dir", str(directory / "exit"), "--metrics", f"127.0.0.1:{self.metrics_port}",
            stderr=stderr,
        )  # fmt: skip
        stderr.close()
        self._source = _on(processors[1], sys.executable, "-c", SOURCE, stdout=subprocess.PIPE)
        assert self._source.stdout is not None
        self.source_port = int(self._source.stdout.readline())

    @staticmethod
    def _htvpn(*arguments: str) -> str:
        command = [sys.executable, "-m", "halftunnel_vpn.cli", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def dropped(self) -> dict[str, int]:
        """Drops by reason."""
        return self._labelled("halftunnel_dropped_total", "reason")

    def counted(self) -> dict[str, int]:
        """Events by name."""
        return self._labelled("halftunnel_events_total", "event")

    def _labelled(self, metric: str, label: str) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        found = {}
        for line in lines:
            if line.startswith(metric + "{"):
                labels, value = line.rsplit(" ", 1)
                found[labels.split(f'{label}="')[1].split('"')[0]] = int(float(value))
        return found

    def resident(self) -> int:
        """Bytes of memory that the exit has."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def processor_time(self) -> float:
        """Seconds of processor time that the exit has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def lines(self) -> int:
        """Lines in its log."""
        return len(self.log.read_text().splitlines())

    @contextmanager
    def attacked(self, kind: str, **more: Any) -> Iterator[Attack]:
        """Under attack until the end of the block."""
        insider = parse_client(self.profiles["insider"])
        told = {
            "up": self.ports[UP], "down": self.ports[DOWN],
            "up_path": self.paths[UP], "down_path": self.paths[DOWN],
            "exit": encode_key(insider.exit.public_key),
            "client": encode_key(insider.client.private_key),
            **more,
        }  # fmt: skip
        process = _on(
            self.processors[1], sys.executable, str(HERE / "attackers.py"), kind, json.dumps(told),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            nice=5,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        attack = Attack()
        try:
            yield attack
        finally:
            try:
                output, _ = process.communicate("", timeout=60)
            finally:
                process.kill()
            attack.count = int(output)

    def stop(self) -> None:
        for process in (self.process, self._source):
            process.terminate()
            process.wait(60)
        self._source.stdout.close()  # type: ignore[union-attr]


class Attack:
    """How often the attacker did what it does; known when it is over."""

    count = 0


@pytest.fixture(scope="module")
def attacked_exit(
    tmp_path_factory: pytest.TempPathFactory, processors: tuple[int, int]
) -> Iterator[ExitUnderAttack]:
    """One exit for all attacks: what one leaves behind, the next one finds."""
    made = ExitUnderAttack(tmp_path_factory.mktemp("attacked"), processors)
    yield made
    assert made.process.poll() is None, made.log.read_text()
    made.stop()
    assert "Traceback" not in made.log.read_text()


class Download:
    """A stream that is read as fast as it comes; implements StreamHandler."""

    def __init__(self) -> None:
        self.stream: Any = None
        self.received = 0
        self.end: str | None = None

    def opened(self, now: float) -> None: ...

    def refused(self, code: ResetCode, now: float) -> None:
        self.end = f"refused {code.name}"

    def data_received(self, data: memoryview, now: float) -> None:
        self.received += len(data)
        self.stream.consumed(len(data), now)

    def finished(self, now: float) -> None:
        self.end = "finished"

    def aborted(self, code: ResetCode, now: float) -> None:
        self.end = f"aborted {code.name}"

    def room_grew(self, now: float) -> None: ...


class Goodput(NamedTuple):
    """Throughput, and what it costs."""

    rate: float
    """MB a second."""
    load: float
    """Share of a processor that the exit used meanwhile."""


class Honest:
    """A client that does nothing wrong: a download that never ends, and streams now and then."""

    def __init__(self, exit_: ExitUnderAttack) -> None:
        profile = parse_client(exit_.profiles["laptop"])
        self.exit = exit_
        self.counters = Counters()
        self.driver = Driver(asyncio.get_running_loop())
        resolver = RoadResolver(1, self.counters)

        def options(road: RoadConfig) -> DialOptions:
            return dataclasses.replace(dial_options(profile, road, resolver), mark=None)

        self.losses = 0
        self.connection = Connection(
            profile,
            ExitSet.single(Connector(profile, options, self.counters)),
            self.driver,
            self.counters,
            ConnectionOwner(session_made=lambda hello: None, session_lost=self._lost),
        )
        self.download = Download()

    def _lost(self, now: float) -> None:
        self.losses += 1

    async def up(self) -> None:
        await self.connection.establish()
        self._running = asyncio.ensure_future(self.connection.run())
        while self.connection.state != "connected":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.download = self.open(self.exit.source_port)

    def open(self, port: int) -> Download:
        made = Download()
        request = OpenRequest(StreamKind.TCP, b"\x7f\0\0\1", port, 0)
        made.stream = self.connection.open_stream(request, made, self.driver.clock())
        return made

    async def goodput(self, seconds: float) -> Goodput:
        """What the download brings now."""
        loop = asyncio.get_running_loop()
        before, began, used = self.download.received, loop.time(), self.exit.processor_time()
        await asyncio.sleep(seconds)
        passed = loop.time() - began
        came = (self.download.received - before) / 1e6
        return Goodput(came / passed, (self.exit.processor_time() - used) / passed)

    async def down(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        session = self.connection.session
        legs = [leg.port._leg for leg in session.legs] if session is not None else []
        self.connection.close()
        while any(leg.state is not LegPhase.GONE for leg in legs):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.driver.close()


@pytest.fixture
async def honest(attacked_exit: ExitUnderAttack) -> AsyncIterator[Honest]:
    """Connected, with its download under way."""
    async with asyncio.timeout(60):
        while True:
            try:
                made = Honest(attacked_exit)
                await made.up()
                break
            except Exception:
                await asyncio.sleep(0.2)
    yield made
    await made.down()
