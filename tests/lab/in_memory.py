"""A client's session and the exit's NAT in one process, joined by legs in memory; their sockets are real."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from typing import Any

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.turns import TurnLimits
from halftunnel_vpn.dns.upstream import UpstreamResolver
from halftunnel_vpn.errors import SessionExpired
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind
from halftunnel_vpn.protocol.wire import Buffer
from halftunnel_vpn.server.client_nat import ClientNat
from halftunnel_vpn.server.dialing import Dialer, DialLimits
from halftunnel_vpn.server.egress import EgressPolicy
from halftunnel_vpn.server.nat import Nat, NatLimits
from halftunnel_vpn.session.legs import NO_MOVEMENT, LegIdentity, Movement, SessionLeg
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.memory_budget import Memory
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.session.session_options import SendingOptions, SessionOwner
from halftunnel_vpn.transport.driver import Driver
from lab.stream_at_now import StreamAtNow


async def poll(condition: Callable[[], Any]) -> None:
    """Return once ``condition`` holds, which nobody announces."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


class Link:
    """One end of a leg in memory; trains arrive at the other end a moment later, unless it is ``blocked``."""

    def __init__(self, owner: Session, driver: Driver) -> None:
        self.owner = owner
        self.peer: Link
        self.state: SessionLeg
        self._driver = driver
        self.blocked = False
        self.closed: str | None = None
        self.overhear: Callable[[bytes], None] | None = None

    @property
    def writable(self) -> bool:
        return not self.blocked

    def send_train(self, parts: Sequence[Buffer]) -> int:
        train = b"".join(parts)
        self._driver.loop.call_soon(self._arrive, train)
        return len(train)

    def _arrive(self, train: bytes) -> None:
        peer = self.peer
        if self.overhear is not None:
            self.overhear(train)
        with contextlib.suppress(SessionExpired):
            peer.owner.train_received(peer.state, memoryview(train), self._driver.clock())

    def set_pace(self, pace: float) -> None: ...

    def movement(self) -> Movement:
        return NO_MOVEMENT

    def close(self, reason: str) -> None:
        self.closed = reason


class StreamUser:
    """The client's end of one stream. It records its events and lets a test wait for them."""

    def __init__(self) -> None:
        self.stream: Any = None
        self.received = bytearray()
        self.events: list[str] = []
        self.runs: list[memoryview] = []
        self.reads = True
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
        if self.reads:
            self.stream.consumed(len(data))
        self.changed.set()

    def run_received(self, data: memoryview, now: float) -> None:
        self.runs.append(memoryview(bytes(data)))
        self._note("run")

    def finished(self, now: float) -> None:
        self._note("finished")

    def aborted(self, code: ResetCode, now: float) -> None:
        self._note(f"aborted {code.name}")

    def room_grew(self, now: float) -> None:
        self.changed.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def heard(self, event: str) -> None:
        """Wait for an event; any other end of the stream is a failure."""
        ends = {"opened", "finished", "run"}
        await self.until(lambda: event in self.events or set(self.events) - ends)
        assert event in self.events, self.events


class InMemory:
    """A client's session and the exit's NAT, joined by legs in memory; the sockets are real."""

    def __init__(self, driver: Driver, counters: Counters, tasks: asyncio.TaskGroup, **changes: Any) -> None:
        self.driver = driver
        self.counters = counters
        self.policy = changes.pop(
            "policy", EgressPolicy(allow=[ip_network("127.0.0.0/8"), ip_network("::1")])
        )
        limits = changes.pop("dials", DialLimits(timeout=1.0))
        self.memory: Memory | None = changes.pop("memory", None)
        servers = changes.pop("resolvers", [])
        has_ipv6 = changes.pop("has_ipv6", lambda: True)
        options: dict[str, Any] = {
            "udp_idle": 60.0,
            "streams_per_client": 100,
            "max_streams": 1000,
        }
        self.nat = Nat(
            self.policy,
            Dialer(driver, limits, counters),
            UpstreamResolver(
                servers,
                counters=counters,
                timeout=changes.pop("resolver_timeout", 0.5),
                attempts=1,
                limits=changes.pop("turns", TurnLimits()),
            ),
            NatLimits(**options | changes),
            has_ipv6=has_ipv6,
            start=tasks.create_task,
        )
        self.client = self._session(is_client=True)
        self.exit = self._session(is_client=False)
        self.links: list[Link] = []
        for direction in Direction:
            ends = Link(self.client, driver), Link(self.exit, driver)
            ends[0].peer, ends[1].peer = ends[1], ends[0]
            for end in ends:
                end.state = SessionLeg(end, LegIdentity(direction, 0), driver.clock())
                self.links.append(end)
            for end in ends:
                end.owner.leg_joined(end.state, driver.clock())

    def _session(self, *, is_client: bool) -> Session:
        session = Session(
            bytes(16),
            SessionOwner(
                self.driver.wheel,
                os.urandom,
                Counters() if is_client else self.counters,
                lambda: pump.wake(),
            ),
            SessionLimits(memory=None if is_client else self.memory),
            self.driver.clock(),
            is_client=is_client,
            acceptor=None if is_client else ClientNat(self.nat, "laptop"),
            sending=SendingOptions(initial_credit=16384 if is_client else 0),
        )
        pump = self.driver.pump(session.pump)
        return session

    def open(self, host: bytes | str, port: int, kind: StreamKind = StreamKind.TCP) -> StreamUser:
        """Ask for a stream."""
        user = StreamUser()
        is_bytes = kind in (StreamKind.TCP, StreamKind.DNS)
        opener = self.client.open_stream if is_bytes else self.client.open_datagrams
        stream = opener(OpenRequest(kind, host, port, 0), user, self.driver.clock())
        user.stream = StreamAtNow(stream, self.driver.clock)
        return user

    async def idle(self) -> None:
        """Wait until no stream has a socket any more, at either end."""
        await poll(lambda: not (self.nat.total or self.client.streams or self.exit.streams))
