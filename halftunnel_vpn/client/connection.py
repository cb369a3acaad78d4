"""The connection to the exit over its whole life: one session after the other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from halftunnel_vpn.client.client_shaping import ClientShaping
from halftunnel_vpn.client.exits.exit_set import ExitSet, Reached
from halftunnel_vpn.client.exits.session_maker import SessionMaker
from halftunnel_vpn.client.leg_recorder import LegRecorder
from halftunnel_vpn.client.legs.keepers import LegKeepers
from halftunnel_vpn.client.legs.leg_info import LegInfo, describe
from halftunnel_vpn.client.legs.new_session import NewSession
from halftunnel_vpn.client.stream_log import log_opening
from halftunnel_vpn.client.tunnel_numbers import TunnelNumbers, numbers_of
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import SessionExpired, UpstreamUnavailable
from halftunnel_vpn.host import resources
from halftunnel_vpn.protocol.handshake_payloads import TAKES_HOP_LIMITS, ExitHello
from halftunnel_vpn.protocol.interfaces import (
    DatagramHandler,
    DatagramPort,
    StreamHandler,
    TransferableStream,
)
from halftunnel_vpn.protocol.keys import Direction, log_id
from halftunnel_vpn.protocol.shaping_terms import ShapingTerms
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode
from halftunnel_vpn.protocol.trace_ports import trace_fields
from halftunnel_vpn.session.intervals import IntervalTable
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.memory_budget import Memory
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.session.session_options import SendingOptions, SessionOwner
from halftunnel_vpn.timers import Timer
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import contain

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
        exits: ExitSet,
        driver: Driver,
        counters: Counters,
        owner: ConnectionOwner,
        intervals: IntervalTable | None = None,
    ) -> None:
        self.session: Session | None = None
        self.session_number = 0
        self.log_fields: dict[str, object] = {}
        """The fields that connect the log lines of the current session."""
        self._profile = profile
        self._exits = exits
        self._driver = driver
        self._counters = counters
        self._owner = owner
        self._keepers: LegKeepers | None = None
        limits = profile.limits
        self.memory = Memory(limits.memory or min(MAX_MEMORY, resources.memory() // SHARE_OF_MEMORY))
        """The memory budget of all streams, whatever the exit grants and acknowledges."""
        self._intervals = intervals or IntervalTable(limits.keepalive, limits.keepalive_longest)
        self.shaping = ClientShaping(profile, counters, secrets.token_bytes)
        # Makes a session after the present one is lost.
        self._maker = SessionMaker(exits, counters, self.wish)
        # The session that takes the place of the present one as soon as that has ended.
        self._successor: Reached | None = None
        self._leg_recorder: LegRecorder | None = None
        self._lost_since: float | None = None
        self._takes_hop_limits = False
        self._without_direction: Timer = driver.wheel.timer(self._gave_up)
        self._idle_timeout = 300.0

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
        return numbers_of(flows, legs_of, self._exits.current.roads)

    def reconnect(self) -> None:
        """Replace every leg at once: the network has changed, or the user has asked for it.

        The session and its streams go on. Without a session, the next attempt begins now.
        """
        self._counters.count("reconnects")
        if self.session is not None and self._keepers is not None:
            self._keepers.move()
        self._maker.hurry()

    def record(self, directory: Path, seconds: float) -> Path:
        """Write down every record for ``seconds``, in a file in ``directory``. Raises HostError."""
        if self._leg_recorder is None:
            self._leg_recorder = LegRecorder(directory, self._driver)
        return self._leg_recorder.start(seconds, self.shaping.mode.name.lower(), self.session)

    # --- another exit --------------------------------------------------------------------------

    @property
    def has_session(self) -> bool:
        """Whether there is a session, with or without legs."""
        return self.session is not None

    @property
    def lost_since(self) -> float | None:
        """Since when a direction has had no leg; None if both have one."""
        return self._lost_since

    @property
    def refusals(self) -> list[str]:
        """Why the exit gives no session now: one sentence, or none."""
        return self._maker.refusals

    def wish(self) -> ShapingTerms | None:
        """Return the shaping that the next handshake requests."""
        return self.shaping.wish(self._driver.clock())

    def hurry(self) -> None:
        """Try every URL of the exit in use now. Without a session, the next attempt begins now."""
        if self.session is not None:
            self._exits.current.roads.forgive()
        self._maker.hurry()

    def continue_with(self, reached: Reached) -> bool:
        """Replace the session by this one at once; return False without a session."""
        if self.session is None or self._keepers is None or self._successor is not None:
            return False
        self._successor = reached
        self._keepers.expire()
        return True

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
        reached = await self._maker.once()
        self._adopt(reached)
        return reached.established

    async def run(self) -> None:
        """Keep the connection up forever, beginning with the session of :meth:`establish`."""
        while True:
            assert self._keepers is not None
            began = self._driver.clock()
            await self._keepers.run()
            self._drop(ResetCode.SHUTDOWN)
            successor, self._successor = self._successor, None
            self._adopt(successor or await self._maker.until_made(self._driver.clock() - began))

    async def drain(self) -> None:
        """Wait until the exit has received the data of all flows, or for DRAIN_TIMEOUT."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT):
                while self.session is not None and not self.session.leg_set.owes_nothing:  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_POLL)

    def close(self) -> None:
        """End the session cleanly."""
        if self._successor is not None:
            self._successor.discard()
        self._drop(ResetCode.SHUTDOWN)
        if self._leg_recorder is not None:
            self._leg_recorder.stop()

    def _adopt(self, reached: Reached) -> None:
        established, limits = reached.established, self._profile.limits
        self.session_number += 1
        self._exits.ranking.in_use = reached.name
        self._maker.refusals = []
        hello = established.exit_hello
        pump = self._driver.pump(lambda now: session.pump(now))
        shaping = self.shaping.plan(hello)
        policy = self.shaping.policy(reached.connector.road(Direction.UPSTREAM).spread)
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
            sending=SendingOptions(
                policy, self._intervals, hello.stream_window, shaping, self.shaping.receipt_interval
            ),
        )
        self.session = session
        self._keepers = LegKeepers(
            reached.connector,
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
        contain(lambda: session.close(code, now), "the end of a session")
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
