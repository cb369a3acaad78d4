"""A real exit and real clients in one event loop: TLS WebSockets on loopback, sockets on loopback, no TUN."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
import websockets.asyncio.client

from halftunnel_vpn.client.connection import Connection, ConnectionOwner
from halftunnel_vpn.client.exits.exit_set import ExitSet
from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.client.legs.connector import Connector
from halftunnel_vpn.client.legs.handshake_clock import HandshakeClock
from halftunnel_vpn.client.settings import dial_options
from halftunnel_vpn.config.client import ClientProfile, parse_client
from halftunnel_vpn.config.exits import RoadConfig
from halftunnel_vpn.config.server import ServerConfig, parse_server
from halftunnel_vpn.config.writing import render
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.certificates import CertifiedKey, make_authority, make_server_certificate
from halftunnel_vpn.protocol.handshake import ClientHandshake
from halftunnel_vpn.protocol.handshake_payloads import ClientHello
from halftunnel_vpn.protocol.join import encode_token_join
from halftunnel_vpn.protocol.keys import Direction, KeyPair, encode_key
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind
from halftunnel_vpn.protocol.trace_ports import NO_TRACING, Tracing
from halftunnel_vpn.protocol.wire import as_uuid4
from halftunnel_vpn.server import main as server_main
from halftunnel_vpn.server.exit import Exit
from halftunnel_vpn.server.reload import Reloader
from halftunnel_vpn.transport.dial import DialOptions
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.listen import Listener

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM
PATHS = {road: "/" + secrets.token_urlsafe(18) for road in Direction}
"""As `server init` makes them."""


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


async def poll(condition: Callable[[], Any], *, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@pytest.fixture
def until() -> Callable[..., Any]:
    """Waits for what nobody announces."""
    return poll


# --- certificates -----------------------------------------------------------------------------------


class Authorities:
    """One authority for each path, as `server init` makes them, and one for a proxy between them."""

    def __init__(self, directory: Path) -> None:
        now = datetime.now(UTC)
        self._validity = {"not_before": now - timedelta(days=1), "not_after": now + timedelta(days=1)}
        self._directory = directory
        self._authorities: dict[str, CertifiedKey] = {}

    def pem(self, name: str) -> str:
        """What a client trusts."""
        return self._authority(name).certificate.decode()

    def issue(self, name: str) -> tuple[Path, Path]:
        """Files of a certificate for loopback by the authority ``name``, and of its key."""
        made = make_server_certificate(
            self._authority(name), ["localhost", "127.0.0.1", "::1"], **self._validity
        )
        certificate, key = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        certificate.write_bytes(made.certificate)
        key.write_bytes(made.private_key)
        return certificate, key

    def trusting(self, name: str) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.pem(name))

    def showing(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(name))
        return context

    def _authority(self, name: str) -> CertifiedKey:
        if name not in self._authorities:
            self._authorities[name] = make_authority(f"{name} authority", **self._validity)
        return self._authorities[name]


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    return Authorities(tmp_path_factory.mktemp("pki"))


# --- the exit ---------------------------------------------------------------------------------------


class RunningExit:
    """The exit of a test: upstream on 127.0.0.1, downstream on ::1, unless told otherwise."""

    def __init__(self, directory: Path, authorities: Authorities, free_port: Callable[..., int]) -> None:
        self.directory = directory
        self.authorities = authorities
        self.keys = KeyPair(secrets.token_bytes(32))
        self.addresses = {UP: "127.0.0.1", DOWN: "::1"}
        self.ports = {road: free_port(self.addresses[road]) for road in Direction}
        self.is_secure = True
        self.tracing: Tracing = NO_TRACING
        self.exit: Exit
        self.listeners: list[Listener]
        self.reloader: Reloader
        self.document: dict[str, Any] = {}
        self._stack = AsyncExitStack()
        (directory / "clients").mkdir()
        (directory / "exit.key").write_text(encode_key(self.keys.private))

    @property
    def dropped(self) -> dict[str, int]:
        return self.exit.counters.dropped

    @property
    def counted(self) -> dict[str, int]:
        return self.exit.counters.counted

    def sessions(self, client: str = "laptop") -> list[Any]:
        return self.exit.registry.sessions_of(client)

    def url(self, road: Direction) -> str:
        host = f"[{self.addresses[road]}]" if ":" in self.addresses[road] else self.addresses[road]
        return f"{'wss' if self.is_secure else 'ws'}://{host}:{self.ports[road]}{PATHS[road]}"

    async def start(
        self,
        *,
        tls: bool = True,
        one_port: bool = False,
        trusted_proxies: tuple[str, ...] = (),
        **limits: Any,
    ) -> RunningExit:
        """Listen. ``limits`` are keys of [limits]."""
        self.is_secure = tls
        if one_port:
            self.addresses[DOWN], self.ports[DOWN] = self.addresses[UP], self.ports[UP]
        listen: dict[str, Any] = {"trusted_proxies": list(trusted_proxies)}
        for road in Direction:
            name = "shared" if one_port else road.name.lower()
            entry = {
                "address": self.addresses[road],
                "port": self.ports[road],
                "path": PATHS[road],
                "tls": tls,
            }
            if tls:
                certificate, key = self.authorities.issue(name)
                entry |= {"certificate": str(certificate), "certificate_key": str(key)}
            listen[road.name.lower()] = entry
        self.write(
            server={"private_key": "exit.key"},
            listen=listen,
            public={road.name.lower(): {"urls": [self.url(road)]} for road in Direction},
            egress={"allow": ["127.0.0.0/8", "::1/128"]},
            dns={"resolvers": ["127.0.0.1"]},
            limits=limits,
        )
        config = self._load()
        driver = Driver(asyncio.get_running_loop())
        self._stack.callback(driver.close)
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self.exit = Exit(self.directory, config, driver, tasks, self.tracing)
        places = await server_main.listen(self.directory, config, self.exit, driver)
        self.listeners = list(places.values())
        self.reloader = Reloader(self.directory, self._load, config, self.exit, places, driver)
        return self

    def write(self, **changes: dict[str, Any]) -> None:
        """Change sections of server.toml; a reload reads it."""
        self.document |= changes
        (self.directory / "server.toml").write_text(render(self.document))

    def _load(self) -> ServerConfig:
        return parse_server((self.directory / "server.toml").read_text())

    def authority(self, road: Direction) -> str:
        """Name of the authority behind a road's certificate."""
        # Two addresses may have one port by chance.
        one_listener = (self.addresses[UP], self.ports[UP]) == (self.addresses[DOWN], self.ports[DOWN])
        return "shared" if one_listener else road.name.lower()

    def admit(self, name: str = "laptop") -> KeyPair:
        """Put a client on the list."""
        keys = KeyPair(secrets.token_bytes(32))
        (self.directory / "clients" / f"{name}.toml").write_text(
            render({"name": name, "public_key": encode_key(keys.public)})
        )
        return keys

    def remove(self, name: str) -> None:
        (self.directory / "clients" / f"{name}.toml").unlink()

    async def stop(self) -> None:
        """Do what `server run` does on a reload."""
        self.reloader.close()
        for listener in self.listeners:
            await listener.stop_accepting()
        await self.exit.drain()
        self.exit.close()
        await asyncio.gather(*(listener.close() for listener in self.listeners))
        self.exit.cancel_tasks()
        await self._stack.aclose()
        self._stack = AsyncExitStack()
        self.listeners = []


@pytest.fixture
async def running_exit(
    tmp_path: Path, authorities: Authorities, free_port: Callable[..., int]
) -> AsyncIterator[RunningExit]:
    """An exit that is still to be started."""
    made = RunningExit(tmp_path, authorities, free_port)
    made.listeners = []
    yield made
    if made.listeners:
        await made.stop()


# --- clients ----------------------------------------------------------------------------------------


class StreamUser:
    """The client's end of one stream. It records its events and lets a test wait for them."""

    def __init__(self) -> None:
        self.stream: Any = None
        self.received = bytearray()
        self.events: list[str] = []
        self.changed = asyncio.Event()

    def _note(self, event: str) -> None:
        self.events.append(event)
        self.changed.set()

    def opened(self, now: float) -> None:
        self._note("opened")

    def refused(self, code: ResetCode, now: float) -> None:
        self._note(f"refused {code.name}")

    def data_received(self, data: memoryview, now: float) -> None:
        self.received += data
        self.stream.consumed(len(data), now)
        self.changed.set()

    def finished(self, now: float) -> None:
        self._note("finished")

    def aborted(self, code: ResetCode, now: float) -> None:
        self._note(f"aborted {code.name}")

    def room_grew(self, now: float) -> None:
        self.changed.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def heard(self, event: str) -> None:
        """Wait for an event; any other end of the stream is a failure."""
        await self.until(lambda: event in self.events or set(self.events) - {"opened", "finished"})
        assert event in self.events, self.events

    async def send(self, data: bytes) -> None:
        """Send all of it, as fast as the stream takes it."""
        view = memoryview(data)
        while view:
            await self.until(lambda: self.stream.room)
            room = min(self.stream.room, 65_000)
            self.stream.send(view[:room], time.monotonic())
            view = view[room:]

    async def echo(self, data: bytes) -> bytes:
        """Send to an echo server and take back as much."""
        start = len(self.received)
        await self.send(data)
        await self.until(lambda: len(self.received) >= start + len(data))
        return bytes(self.received[start:])


class RunningClient:
    """A client without a TUN: connector, connection, legs. ``urls`` may lead elsewhere than to the exit."""

    def __init__(
        self,
        profile: ClientProfile,
        authority_of: Callable[[RoadConfig], str | None],
        clock: HandshakeClock | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self.profile = profile
        self.counters = Counters()
        self.driver = Driver(asyncio.get_running_loop())
        self.losses = 0
        self.hellos: list[Any] = []
        self._resolver = RoadResolver(1, self.counters)
        self._authority_of = authority_of
        self.connector = Connector(profile, self._options, self.counters, clock, tracing=tracing)
        self.connection = Connection(
            profile,
            ExitSet.single(self.connector),
            self.driver,
            self.counters,
            ConnectionOwner(self.hellos.append, self._lost),
        )
        self._running: asyncio.Task[None] | None = None

    def _options(self, road: RoadConfig) -> DialOptions:
        # a mark needs CAP_NET_ADMIN
        return dataclasses.replace(
            dial_options(self.profile, road, self._resolver), mark=None, ca_pem=self._authority_of(road)
        )

    def _lost(self, now: float) -> None:
        self.losses += 1

    async def up(self) -> RunningClient:
        """Connect, and stay connected."""
        await self.connection.establish()
        self._running = asyncio.ensure_future(self.connection.run())
        await poll(lambda: self.connection.state == "connected")
        return self

    def open(
        self, port: int, host: bytes | str = b"\x7f\0\0\1", kind: StreamKind = StreamKind.TCP
    ) -> StreamUser:
        """A stream."""
        user = StreamUser()
        is_bytes = kind in (StreamKind.TCP, StreamKind.DNS)
        opener = self.connection.open_stream if is_bytes else self.connection.open_datagrams
        user.stream = opener(OpenRequest(kind, host, port, 0), user, self.driver.clock())
        return user

    def legs(self, road: Direction) -> list[Any]:
        """The WebSockets of a direction."""
        session = self.connection.session
        return [] if session is None else [state.port._leg for state in session.legs_of(road)]

    async def down(self) -> None:
        """Say goodbye and leave."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self.connection.close()
        await asyncio.sleep(0)
        self.driver.close()


MakeClient = Callable[..., RunningClient]


@pytest.fixture
async def make_client(running_exit: RunningExit) -> AsyncIterator[MakeClient]:
    """Makes clients of the exit; all are taken down after the test."""
    made: list[RunningClient] = []

    def make(
        name: str = "laptop",
        *,
        keys: KeyPair | None = None,
        exit_public: bytes | None = None,
        urls: dict[Direction, list[str]] | None = None,
        authority: dict[Direction, str | None] | None = None,
        connections: int = 1,
        road: dict[str, Any] | None = None,
        upstream: dict[str, Any] | None = None,
        proxy: str | None = None,
        limits: dict[str, Any] | None = None,
        shaping: dict[str, Any] | None = None,
        clock: HandshakeClock | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> RunningClient:
        document: dict[str, Any] = {
            "name": name,
            "exit": {"public_key": encode_key(exit_public or running_exit.keys.public)},
            "client": {"private_key": encode_key((keys or running_exit.admit(name)).private)},
            "limits": {"handshake_timeout": 3.0, "connect_timeout": 5.0, **(limits or {})},
            "shaping": shaping or {},
        }
        if proxy is not None:
            document["proxy"] = {"url": proxy}
        for way in Direction:
            targets = (urls or {}).get(way) or [running_exit.url(way)]
            document[way.name.lower()] = {
                "urls": targets,
                "connections": connections,
                **(road or {}),
            }
        document["upstream"] |= upstream or {}
        profile = parse_client(render(document))

        def authority_of(road: RoadConfig) -> str | None:
            direction = UP if road is profile.upstream else DOWN
            name = (authority or {}).get(direction, running_exit.authority(direction))
            return None if name is None else running_exit.authorities.pem(name)

        made.append(RunningClient(profile, authority_of, clock, tracing))
        return made[-1]

    yield make
    for client in made:
        await client.down()


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[str], Any]]:
    """Connects with a profile as `add-client` writes it, to an exit that is a process of its own."""
    made: list[RunningClient] = []

    async def up(text: str) -> RunningClient:
        profile = parse_client(text)
        made.append(RunningClient(profile, lambda road: road.tls.ca))
        return await made[-1].up()

    yield up
    for client in made:
        await client.down()


# --- strangers --------------------------------------------------------------------------------------


class Attempt:
    """The first messages of one handshake, for tests that send them directly."""

    def __init__(
        self, keys: KeyPair, exit_public: bytes, *, skew: float = 0.0, session_id: bytes | None = None
    ) -> None:
        self.hello = ClientHello(
            session_id=session_id or as_uuid4(secrets.token_bytes(16)),
            join_token=as_uuid4(secrets.token_bytes(16)),
            timestamp=int((time.time() + skew) * 1e6),
            nonce=secrets.token_bytes(16),
        )
        self.handshake = ClientHandshake(
            keys, exit_public, self.hello, secrets.token_bytes(32), packet_id=secrets.token_bytes(16)
        )
        self.message = self.handshake.message()
        self.token = encode_token_join(self.hello.join_token, secrets.token_bytes(50))


@pytest.fixture
def attempt(running_exit: RunningExit) -> Callable[..., Attempt]:
    """Makes handshakes of a client whose key is given."""
    return lambda keys, **options: Attempt(keys, running_exit.keys.public, **options)


@pytest.fixture
async def raw(running_exit: RunningExit) -> AsyncIterator[Callable[..., Any]]:
    """Opens WebSockets to a road with websockets' own client."""
    stack = AsyncExitStack()

    async def connect(road: Direction, **options: Any) -> Any:
        context = running_exit.authorities.trusting(running_exit.authority(road))
        return await stack.enter_async_context(
            websockets.asyncio.client.connect(
                running_exit.url(road),
                ssl=context if running_exit.is_secure else None,
                proxy=None,
                compression=None,
                ping_interval=None,
                max_size=1 << 20,
                **options,
            )
        )

    yield connect
    await stack.aclose()


# --- destinations -----------------------------------------------------------------------------------


class EchoServer:
    """Sends back what it gets, and ends when the client has."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 18):
                writer.write(data)
                await writer.drain()
        self.open.discard(writer)
        writer.close()


@pytest.fixture
async def echo_server() -> AsyncIterator[EchoServer]:
    """An asyncio server on 127.0.0.1."""
    made = EchoServer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, limit=1 << 20)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    for writer in list(made.open):
        writer.close()


@pytest.fixture(autouse=True)
def no_unseen_exceptions(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No callback and no task fails without anybody seeing it."""
    yield
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    unseen = [record for record in records if record.name == "asyncio" and record.levelno >= logging.ERROR]
    assert not unseen, [record.getMessage() for record in unseen]
