"""Certificates, listeners and peers for legs on loopback; every test runs on uvloop and on plain asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import os
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol import certificates
from halftunnel_vpn.transport.certificate_store import CertificateFiles, CertificateStore
from halftunnel_vpn.transport.decoy_site import Site, Sites
from halftunnel_vpn.transport.dial import DialOptions, dial
from halftunnel_vpn.transport.leg import Leg
from halftunnel_vpn.transport.listen import Listener, ListenerOwner
from halftunnel_vpn.transport.tls import server_context

SECRET_PATH = "/a3f9/stream"
DAY = datetime.timedelta(days=1)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


# --- certificates -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """PEM files of one certificate and its key."""

    certificate: Path
    key: Path

    @property
    def pem(self) -> str:
        return self.certificate.read_text()

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.pem)).digest()

    def store(self) -> CertificateStore:
        return CertificateStore([CertificateFiles(self.certificate, self.key)])

    def context(self) -> ssl.SSLContext:
        return server_context(self.certificate, self.key)


class Authority:
    """A certificate authority that exists for one test run."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir()
        self._directory = directory
        now = datetime.datetime.now(datetime.UTC)
        self._own = certificates.make_authority(name, not_before=now - DAY, not_after=now + 30 * DAY)
        self.pem = self._own.certificate.decode()

    def issue(
        self,
        *names: str,
        begins: datetime.timedelta = -DAY,
        ends: datetime.timedelta = 7 * DAY,
    ) -> Certificate:
        """A server certificate for names and IP addresses; validity relative to now."""
        now = datetime.datetime.now(datetime.UTC)
        made = certificates.make_server_certificate(
            self._own, names, not_before=now + begins, not_after=now + ends
        )
        directory = Path(tempfile.mkdtemp(dir=self._directory))
        paths = Certificate(directory / "certificate.pem", directory / "key.pem")
        paths.certificate.write_bytes(made.certificate)
        paths.key.write_bytes(made.private_key)
        return paths


@pytest.fixture(scope="session")
def make_authority(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Authority]:
    """Makes a certificate authority of its own."""
    return lambda name: Authority(tmp_path_factory.mktemp("pki") / "ca", name)


@pytest.fixture(scope="session")
def authority(make_authority: Callable[[str], Authority]) -> Authority:
    """The authority that everybody here trusts."""
    return make_authority("Half-Tunnel test authority")


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> Certificate:
    """The certificate of localhost."""
    return authority.issue("localhost", "127.0.0.1", "::1")


# --- legs -------------------------------------------------------------------------------------------


class Recorder:
    """A leg's owner that records its events and lets a test wait for them."""

    def __init__(self) -> None:
        self.leg: Leg | None = None
        self.records: list[bytes] = []
        self.reason: str | None = None
        self.writable_again = 0
        self.joined: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()

    def leg_opened(self, leg: Leg) -> None:
        assert self.leg is None, "a leg opens once"
        self.leg = leg
        self._changed.set()

    def record_received(self, leg: Leg, record: bytes | bytearray | memoryview) -> None:
        assert leg is self.leg, "opened first"
        assert self.reason is None, "nothing comes after the end"
        self.records.append(bytes(record))
        self._changed.set()

    def leg_writable(self, leg: Leg) -> None:
        assert leg.writable
        self.writable_again += 1
        self._changed.set()

    def leg_closed(self, leg: Leg, reason: str) -> None:
        assert self.reason is None, "a leg closes once"
        assert not leg.writable
        self.reason = reason
        self._changed.set()

    async def until(self, condition: Callable[[Recorder], Any]) -> None:
        async with asyncio.timeout(60):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def opened(self) -> Leg:
        await self.until(lambda r: r.leg is not None)
        assert self.leg is not None
        return self.leg

    async def received(self, count: int) -> list[bytes]:
        await self.until(lambda r: len(r.records) >= count or r.reason is not None)
        return self.records

    async def closed(self) -> str:
        await self.until(lambda r: r.reason is not None)
        assert self.reason is not None
        return self.reason


@pytest.fixture
def recorder() -> Callable[[], Recorder]:
    """Makes owners for legs."""
    return Recorder


@dataclass
class Exit:
    """A listener on loopback with one path that takes legs."""

    listener: Listener
    port: int
    url: str
    http_url: str
    owners: asyncio.Queue[Recorder]
    options: DialOptions

    async def dial(self, owner: Recorder, **options: Any) -> Leg:
        changed = {name: getattr(self.options, name) for name in DialOptions.__dataclass_fields__} | options
        return await dial(self.url, DialOptions(**changed), owner)

    async def pair(self) -> tuple[Leg, Recorder, Leg, Recorder]:
        """A fresh leg with both of its ends: client, its owner, server, its owner."""
        owner = Recorder()
        leg = await self.dial(owner)
        other = await self.arrived()
        return leg, owner, await other.opened(), other

    async def arrived(self) -> Recorder:
        """The owner of the leg that came in next."""
        async with asyncio.timeout(60):
            return await self.owners.get()


StartExit = Callable[..., Any]


@pytest.fixture
async def start_exit(certificate: Certificate, authority: Authority) -> AsyncIterator[StartExit]:
    """Starts listeners, with TLS unless asked otherwise, and closes them after the test."""
    listeners = []

    async def start(
        *,
        tls: bool = True,
        shown: Certificate | None = None,
        address: str = "127.0.0.1",
        site: Site | None = None,
        clock: Callable[[], float] = time.monotonic,
        counters: Counters | None = None,
        **options: Any,
    ) -> Exit:
        owners: asyncio.Queue[Recorder] = asyncio.Queue()

        def owner_of(leg: Leg, joined: Callable[[], None]) -> Recorder:
            owner = Recorder()
            owner.joined = joined
            owners.put_nowait(owner)
            return owner

        listener_owner = ListenerOwner(counters or Counters(), clock)
        listener = Listener({SECRET_PATH: owner_of}, Sites(site or Site()), listener_owner, **options)
        listeners.append(listener)
        port = await listener.start(address, 0, tls=(shown or certificate).store() if tls else None)
        secure = "s" if tls else ""
        return Exit(
            listener,
            port,
            f"ws{secure}://localhost:{port}{SECRET_PATH}",
            f"http{secure}://localhost:{port}",
            owners,
            DialOptions(ca_pem=authority.pem if tls else None),
        )

    yield start
    for listener in listeners:
        await listener.close()


@pytest.fixture(params=["tls", "plain"])
async def exit_server(request: pytest.FixtureRequest, start_exit: StartExit) -> Exit:
    """A listener, once over TLS and once without."""
    started: Exit = await start_exit(tls=request.param == "tls")
    return started


# --- nothing is left behind -------------------------------------------------------------------------


def open_sockets() -> set[str]:
    """The TCP sockets of this process; the loops have sockets of their own, which are none."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{descriptor}")
            if target.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(descriptor))) as sock:
                    if sock.family in (socket.AF_INET, socket.AF_INET6):
                        found.add(target)
    return found


async def poll(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """Waits for what nobody announces."""
    return poll


@pytest.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    """No test leaves a socket open, nor an exception that nobody saw."""
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unseen.append(context))
    before = open_sockets()
    yield
    await poll(lambda: not open_sockets() - before)
    assert not unseen


@pytest.fixture
def free_port(free_port: Callable[..., int]) -> int:
    """A port on which nothing listens."""
    return free_port()


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """A port that takes connections and never says a word."""

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(keep_silent, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Sizes at which the frame header changes its form."""
    if "size" in metafunc.fixturenames:
        metafunc.parametrize("size", [0, 1, 125, 126, 65535, 65536])


@pytest.fixture
def secret_path() -> str:
    """Where legs are taken."""
    return SECRET_PATH


@pytest.fixture
def loopback_resolver() -> Iterator[Any]:
    """Finds every name on loopback."""

    async def resolve(host: str, port: int) -> list[tuple[Any, ...]]:
        return [("127.0.0.1", port)]

    yield resolve
