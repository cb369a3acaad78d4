"""The connection to the exit over its whole life: one session after the other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from halftunnel_vpn.client.backoff import Backoff
from halftunnel_vpn.client.client_shaping import ClientShaping
from halftunnel_vpn.client.leg_recorder import LegRecorder
from halftunnel_vpn.client.legs.connector import Connector, NewSession
from halftunnel_vpn.client.legs.handshake_sentences import explain
from halftunnel_vpn.client.legs.keepers import LegInfo, LegKeepers, describe
from halftunnel_vpn.client.stream_log import log_opening
from halftunnel_vpn.client.tunnel_numbers import TunnelNumbers, numbers_of
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HandshakeError, RoadError, SessionExpired, UpstreamUnavailable
from halftunnel_vpn.host import resources
from halftunnel_vpn.protocol.handshake_payloads import TAKES_HOP_LIMITS, ExitHello
from halftunnel_vpn.protocol.interfaces import (
    DatagramHandler,
    DatagramPort,
    StreamHandler,
    TransferableStream,
)
from halftunnel_vpn.protocol.keys import Direction, log_id
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode
from halftunnel_vpn.protocol.trace_ports import trace_fields
from halftunnel_vpn.session.intervals import IntervalTable
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.memory_budget import Memory
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.session.session_options import SendingOptions, SessionOwner
from halftunnel_vpn.timers import Timer
from halftunnel_vpn.transport.driver import Driver, Pump

MAX_MEMORY = 512 * 1024 * 1024
"""The most bytes that all streams may hold, unless configured."""

SHARE_OF_MEMORY = 2
"""1/N of the memory of this machine, or of the limit of its cgroup, if that is less."""

DRAIN_TIMEOUT = 1.0
"""Seconds for which a stopping client goes on delivering the data of its flows."""

DRAIN_POLL = 0.02
"""The poll interval in seconds for undelivered data."""

FAIL_FAST_AFTER = 10.0
"""Seconds after the loss of a direction from which new flows are refused at once. Open flows go on."""

log = logging.getLogger(__name__)


class ConnectionOwner(NamedTuple):
    """Is called about the life of a connection."""

    # Called with what the exit grants.
    session_made: Callable[[ExitHello], None]
    # Called with the time when all streams are lost.
    session_lost: Callable[[float], None]
    legs_changed: Callable[[], None] = lambda: None


class Connection:
    """Owns the current session; implements StreamOpener."""

    def __init__(
        self,
        profile: ClientProfile,
        connector: Connector,
        driver: Driver,
        counters: Counters,
        owner: ConnectionOwner,
        intervals: IntervalTable | None = None,
    ) -> None:
        self.session: Session | None = None
        self.session_number = 0
        self.refusals: list[str] = []
        """Why the exit gives no session now: one sentence, or none."""
        self.log_fields: dict[str, object] = {}
        """The fields that connect the log lines of the current session."""
        self.pump: Pump = driver.pump(lambda now: None)
        self._profile = profile
        self._connector = connector
        self._driver = driver
        self._counters = counters
        self._owner = owner
        self._keepers: LegKeepers | None = None
        limits = profile.limits
        self.memory = Memory(limits.memory or min(MAX_MEMORY, resources.memory() // SHARE_OF_MEMORY))
        """The memory budget of all streams, whatever the exit grants and acknowledges."""
        self._intervals = intervals or IntervalTable(limits.keepalive, limits.keepalive_longest)
        self.shaping = ClientShaping(profile, counters, secrets.token_bytes)
        self._leg_recorder: LegRecorder | None = None
        self._lost_since: float | None = None
        self._takes_hop_limits = False
        self._without_direction: Timer = driver.wheel.timer(self._gave_up)
        self._idle_timeout = 300.0
        self._waiting = asyncio.Event()

    @property
    def state(self) -> TunnelState:
        """``connecting``, ``connected`` or ``reconnecting``."""
        if self.session is None:
            return TunnelState.RECONNECTING if self.session_number else TunnelState.CONNECTING
        return TunnelState.RECONNECTING if self.lost_directions else TunnelState.CONNECTED

    @property
    def lost_directions(self) -> tuple[Direction, ...]:
        """The directions without a leg; both while there is no session."""
        session = self.session
        if session is None:
            return tuple(Direction)
        return tuple(way for way in Direction if not any(not leg.draining for leg in session.legs_of(way)))

    def legs(self) -> list[LegInfo]:
        """Return every open leg, upstream first, the oldest first."""
        if self.session is None:
            return []
        now = self._driver.clock()
        return [describe(leg, now) for way in Direction for leg in self.session.legs_of(way)]

    def numbers(self, flows: Mapping[str, int]) -> TunnelNumbers:
        """Return what the metrics say of the connection and the ``flows``, by kind, that use it."""
        legs_of = None if self.session is None else self.session.legs_of
        return numbers_of(flows, legs_of, self._connector.roads)

    def reconnect(self) -> None:
        """Replace every leg at once: the network has changed, or the user has asked for it.

        The session and its streams go on. Without a session, the next attempt begins now.
        """
        self._counters.count("reconnects")
        if self.session is not None and self._keepers is not None:
            self._keepers.move()
        waiting, self._waiting = self._waiting, asyncio.Event()
        waiting.set()

    def record(self, directory: Path, seconds: float) -> Path:
        """Write down every record for ``seconds``, in a file in ``directory``. Raises HostError."""
        if self._leg_recorder is None:
            self._leg_recorder = LegRecorder(directory, self._driver)
        return self._leg_recorder.start(seconds, self.shaping.mode.name.lower(), self.session)

    # --- StreamOpener ----------------------------------------------------------------------------

    def open_stream(self, request: OpenRequest, handler: StreamHandler, now: float) -> TransferableStream:
        """Open a stream like Session.open_stream. Raises SessionExpired while there is no session.

        Raises UpstreamUnavailable when a direction has been lost for FAIL_FAST_AFTER.
        """
        session = self._serving(now)
        if request.hop_limit and not self._takes_hop_limits:
            request = request._replace(hop_limit=0)  # an exit of an earlier version would refuse it
        stream = session.open_stream(request, handler, now)
        log_opening(stream, request, self.log_fields)
        return stream

    def open_datagrams(self, request: OpenRequest, handler: DatagramHandler, now: float) -> DatagramPort:
        """Open a stream like Session.open_datagrams. Raises the same errors as :meth:`open_stream`."""
        stream = self._serving(now).open_datagrams(request, handler, now)
        log_opening(stream, request, self.log_fields)
        return stream

    def _serving(self, now: float) -> Session:
        since = self._lost_since
        if since is not None and now - since > FAIL_FAST_AFTER:
            lost = " and ".join(way.name.lower() for way in self.lost_directions)
            raise UpstreamUnavailable(
                f"There has been no {lost} leg for {now - since:.0f} s: check the network and the exit.",
                reason="direction-lost",
            )
        if self.session is None:
            raise SessionExpired("there is no session")
        return self.session

    # --- life ------------------------------------------------------------------------------------

    async def establish(self) -> NewSession:
        """Make one handshake. Raises RoadError or HandshakeError."""
        self._connector.shaping_wish = self.shaping.wish(self._driver.clock())
        established = await self._connector.new_session()
        self._adopt(established)
        return established

    async def run(self) -> None:
        """Keep the connection up forever, beginning with the session of :meth:`establish`."""
        while True:
            assert self._keepers is not None
            await self._keepers.run()
            self._drop(ResetCode.SHUTDOWN)
            await self._establish_again()

    async def drain(self) -> None:
        """Wait until the exit has received the data of all flows, or for DRAIN_TIMEOUT."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT):
                while self.session is not None and not self.session.leg_set.owes_nothing:  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_POLL)

    def close(self) -> None:
        """End the session cleanly."""
        self._drop(ResetCode.SHUTDOWN)
        if self._leg_recorder is not None:
            self._leg_recorder.stop()

    async def _establish_again(self) -> NewSession:
        backoff = Backoff(random.random)
        while True:
            self._connector.shaping_wish = self.shaping.wish(self._driver.clock())
            attempt = asyncio.ensure_future(self._connector.new_session())
            moved = asyncio.ensure_future(self._waiting.wait())
            try:
                await asyncio.wait((attempt, moved), return_when=asyncio.FIRST_COMPLETED)
                if attempt.done():
                    established = attempt.result()
                    self._adopt(established)
                    return established
            except HandshakeError as error:
                self._counters.drop(error.reason)
                self.refusals = [explain(error)]
                log.warning("%s", self.refusals[0])
            except RoadError as error:
                self._counters.drop(f"connect-{error.reason}")
                log.warning("%s", error)
            finally:
                await _give_up(attempt, moved)
            if moved.done() and not moved.cancelled():
                backoff.reset()  # the network has changed, so begin again with short pauses
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next_delay()):
                    await self._waiting.wait()

    def _adopt(self, established: NewSession) -> None:
        limits = self._profile.limits
        self.session_number += 1
        self.refusals = []
        hello = established.exit_hello
        pump = self._driver.pump(lambda now: session.pump(now))
        shaping = self.shaping.plan(hello)
        if shaping is not None:
            self._driver.blur()
        session = Session(
            established.session_id,
            SessionOwner(
                self._driver.wheel,
                secrets.token_bytes,
                self._counters,
                pump.wake,
                self._ended_by_exit,
                established.trace,
            ),
            SessionLimits(
                max_streams=hello.max_streams or limits.max_flows,
                window_pool=limits.session_window,
                stream_window=limits.stream_window,
                keepalive=limits.keepalive,
                memory=self.memory,
            ),
            self._driver.clock(),
            is_client=True,
            sending=SendingOptions(self.shaping.policy(), self._intervals, hello.stream_window, shaping),
        )
        self.session = session
        self.pump = pump
        self._keepers = LegKeepers(
            self._connector,
            session,
            established,
            self._driver,
            self._counters,
            self._legs_changed,
            self._intervals,
        )
        self._legs_changed()
        self._takes_hop_limits = hello.capabilities & TAKES_HOP_LIMITS != 0
        self._idle_timeout = hello.idle_timeout or 300.0
        self.log_fields = {"session": self.session_number, "id": log_id(established.session_id)}
        self.log_fields.update(trace_fields(established.trace))
        log.info("session established", extra=self.log_fields)
        self._owner.session_made(hello)

    def _drop(self, code: ResetCode) -> None:
        session, self.session = self.session, None
        self._without_direction.cancel()
        if session is None:
            return
        if self._lost_since is None:
            self._lost_since = self._driver.clock()
        if self._keepers is not None:
            self._keepers.expire()
        now = self._driver.clock()
        session.close(code, now)
        log.info("session over: %s", code.name.lower(), extra=self.log_fields)
        self._owner.session_lost(now)
        self._owner.legs_changed()

    def _ended_by_exit(self) -> None:
        self._counters.count("sessions-ended-by-exit")
        if self._keepers is not None:
            self._keepers.expire()

    def _legs_changed(self) -> None:
        self._owner.legs_changed()
        if self._leg_recorder is not None:
            self._leg_recorder.legs_changed(self.session)
        session = self.session
        if session is None:
            return
        now = self._driver.clock()
        if not self.lost_directions:
            self._without_direction.cancel()
            self._lost_since = None
            return
        if self._lost_since is None:
            self._lost_since = now
        if not self._without_direction.armed:
            # The exit discards a session without legs after this time, so it cannot be resumed later.
            self._without_direction.arm(now + self._idle_timeout)

    def _gave_up(self, now: float) -> None:
        self._counters.count("sessions-given-up")
        if self._keepers is not None:
            self._keepers.expire()


async def _give_up(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what is not done, and wait until it has ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
