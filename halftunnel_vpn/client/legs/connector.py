"""Opens legs to the exit: the two that create a session, and those that join it later."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from halftunnel_vpn.client.legs.dial_race import Attempt, Race, patience_for
from halftunnel_vpn.client.legs.early_messages import EarlyMessages
from halftunnel_vpn.client.legs.handshake_clock import HandshakeClock
from halftunnel_vpn.client.legs.new_session import NewLeg, NewSession
from halftunnel_vpn.client.legs.roads import Roads
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.exits import RoadConfig
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HandshakeError, RoadError, UpstreamUnavailable
from halftunnel_vpn.protocol.handshake import ClientHandshake, HandshakeRefused
from halftunnel_vpn.protocol.handshake_payloads import (
    OPENS_URGENT_LEGS,
    READS_REFUSALS,
    READS_STALE_TIME,
    ClientHello,
    ExitHello,
    ExitStatus,
)
from halftunnel_vpn.protocol.join import encode_join, encode_token_join, verify_join_reply
from halftunnel_vpn.protocol.keys import NONCE_LENGTH, Direction, KeyPair, SessionKeys
from halftunnel_vpn.protocol.shaping_terms import TAKES_PADDING, ShapingTerms
from halftunnel_vpn.protocol.trace_ports import NO_TRACING, Tracing
from halftunnel_vpn.protocol.wire import as_uuid4
from halftunnel_vpn.transport.dial import DialOptions, dial
from halftunnel_vpn.transport.leg import Leg

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_PADDING = 256
"""The most bytes of padding in a handshake or join message."""

MAX_TIME_REFUSALS = 2
"""Consecutive handshakes that are repeated at once after the exit refused their timestamp."""

LAST_WORD = 1.0
"""Seconds that message 2 may still take on its path after the exit has closed the other leg."""


@dataclass(frozen=True, slots=True)
class OpenedLeg:
    """A WebSocket to ``url`` over which nothing has been sent."""

    leg: Leg
    early: EarlyMessages
    url: str
    dialled_at: float
    """When it was opened."""


class Connector:
    """Opens legs for ``profile``. ``options_of`` returns the dial options of a direction.

    ``clock`` returns the timestamps of handshakes; None for one that keeps nothing over a restart.
    """

    def __init__(
        self,
        profile: ClientProfile,
        options_of: Callable[[RoadConfig], DialOptions],
        counters: Counters,
        clock: HandshakeClock | None = None,
        invitation: bytes = b"",
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._tracing = tracing
        self.clock = clock or HandshakeClock()
        self._invitation = invitation
        self._profile = profile
        self.dial_options = options_of
        self._counters = counters
        self.roads = Roads(profile)
        self._static = KeyPair(profile.client.private_key)
        self.shaping_wish: ShapingTerms | None = None
        """The shaping that the next handshake requests."""

    def road(self, direction: Direction) -> RoadConfig:
        """Return the configuration of ``direction``."""
        return self.roads.config(direction)

    async def new_session(self) -> NewSession:
        """Make a handshake; repeat it with the exit's time if the exit refuses ours.

        Raises RoadError when a leg cannot be opened or the exit does not answer, HandshakeError when the
        answer is not genuine, HandshakeRefused when it is genuine and a refusal.
        """
        for refusals in range(MAX_TIME_REFUSALS + 1):
            began = monotonic()
            try:
                established = await self._handshake(began)
            except HandshakeRefused as error:
                self._tracing.handshake_failed(error.reason, began)
                if refusals == MAX_TIME_REFUSALS or not self._learn_time(error.exit_hello):
                    raise
                self._counters.drop(error.reason)
                for notice in self.clock.notices:
                    log.warning("%s", notice)
            except (RoadError, HandshakeError) as error:
                self._tracing.handshake_failed(error.reason, began)
                raise
            else:
                self.clock.accepted(at_once=not refusals)
                return established
        raise AssertionError("the last attempt returns or raises")

    def _learn_time(self, hello: ExitHello) -> bool:
        """Adopt the time of the exit; return False if the time is not the reason of the refusal."""
        if hello.status is ExitStatus.CLOCK_SKEW:
            self.clock.follow(hello.wall_time)
        elif hello.status is ExitStatus.STALE_TIME:
            self.clock.skip(hello.last_timestamp)
        else:
            return False
        return True

    async def _handshake(self, began: float) -> NewSession:
        """Send message 1 upstream and receive message 2 downstream, over the first URLs that answer.

        Raises RoadError when a leg cannot be opened or the exit does not answer, HandshakeError when the
        answer is not genuine, HandshakeRefused when it is genuine and a refusal.
        """
        async with contextlib.AsyncExitStack() as undo:
            reserved = asyncio.ensure_future(
                self.clock.next()
            )  # it waits for the disk, the dials for the network
            undo.push_async_callback(_to_its_end, reserved)
            up, down = await self._dial_both()
            undo.callback(up.leg.abort)
            undo.callback(down.leg.abort)
            hello = ClientHello(
                session_id=as_uuid4(secrets.token_bytes(16)),
                join_token=as_uuid4(secrets.token_bytes(16)),
                timestamp=await reserved,
                nonce=secrets.token_bytes(NONCE_LENGTH),
                capabilities=READS_STALE_TIME
                | TAKES_PADDING
                | READS_REFUSALS
                | (OPENS_URGENT_LEGS if self._profile.downstream.urgent_leg else 0),
                shaping=self.shaping_wish,
                invitation=self._invitation,
            )
            handshake = ClientHandshake(
                self._static,
                self._profile.exit.public_key,
                hello,
                secrets.token_bytes(32),
                packet_id=secrets.token_bytes(16),
                padding=secrets.randbelow(MAX_PADDING),
            )
            up.leg.send(handshake.message())
            down.leg.send(encode_token_join(hello.join_token, _padding()))
            exit_hello, keys = handshake.finish(await self._answer(down.early, up.early))
            undo.pop_all()

        def first_leg(opened: OpenedLeg, direction: Direction) -> NewLeg:
            leg_keys = keys.leg_keys(direction, 0, hello.nonce, exit_hello.nonce)
            return NewLeg(opened.leg, opened.early, direction, 0, leg_keys, opened.url, opened.dialled_at)

        self._counters.count("handshakes")
        trace = self._tracing.session(keys, is_client=True)
        if trace is not None:
            trace.handshake(began, max(up.dialled_at, down.dialled_at))
        return NewSession(
            hello.session_id,
            keys,
            exit_hello,
            first_leg(up, Direction.UPSTREAM),
            first_leg(down, Direction.DOWNSTREAM),
            trace,
        )

    async def join(
        self, keys: SessionKeys, direction: Direction, take_number: Callable[[], int], url: str
    ) -> NewLeg:
        """Open a leg of ``direction`` to ``url``. ``take_number`` returns its number just before it joins.

        A second dial is started beside one that hangs. Raises RoadError when none can be opened, LegClosed
        when the exit refuses the leg, HandshakeError when the answer is not genuine.
        """

        async def dial_and_join(attempt: Attempt[NewLeg]) -> NewLeg:
            opened = await self._dial(direction, url, attempt)
            try:
                await attempt.turn()
                return await self._join(keys, direction, take_number(), opened)
            except BaseException:
                opened.leg.abort()
                raise

        return await self._race(dial_and_join, direction, url)

    async def _join(self, keys: SessionKeys, direction: Direction, number: int, opened: OpenedLeg) -> NewLeg:
        client_nonce = secrets.token_bytes(NONCE_LENGTH)
        opened.leg.send(encode_join(keys, direction, number, client_nonce, _padding()))
        async with _deadline(self._profile.limits.handshake_timeout):
            reply = await opened.early.next_message()
        exit_nonce = verify_join_reply(reply, keys, direction, number, client_nonce)
        leg_keys = keys.leg_keys(direction, number, client_nonce, exit_nonce)
        return NewLeg(opened.leg, opened.early, direction, number, leg_keys, opened.url, opened.dialled_at)

    async def _dial_both(self) -> tuple[OpenedLeg, OpenedLeg]:
        """Dial a leg in each direction at the same time. If one fails, the other is closed."""
        dials = [asyncio.ensure_future(self._dial_first(direction)) for direction in Direction]
        try:
            # Not gather(): it loses a cancellation that comes in the same iteration in which a dial fails.
            await asyncio.wait(dials, return_when=asyncio.FIRST_EXCEPTION)
            for task in dials:
                if task.done():
                    task.result()  # raises the error of a failed dial
            return dials[0].result(), dials[1].result()
        except BaseException:
            for task in dials:
                task.cancel()
            for outcome in await asyncio.gather(*dials, return_exceptions=True):
                if not isinstance(outcome, BaseException):
                    outcome.leg.abort()
            raise

    async def _dial_first(self, direction: Direction) -> OpenedLeg:
        """Open a leg to the first URL of ``direction`` that works."""
        failure: RoadError | None = None
        for url in self.roads.in_order(direction, monotonic()):
            breaker = self.roads.breakers[direction][url]
            try:
                opened = await self._dial_one(direction, url)
            except RoadError as error:
                self._counters.drop(f"dial-{error.reason}")
                breaker.failed(monotonic())
                failure = error
            else:
                breaker.succeeded()
                return opened
        assert failure is not None, "a direction has at least one URL"
        raise UpstreamUnavailable(f"{direction.name.capitalize()}: {failure}", reason=failure.reason)

    async def _dial_one(self, direction: Direction, url: str) -> OpenedLeg:
        """Open a leg to ``url`` that has joined nothing. A second dial is started beside one that hangs."""

        async def dial_only(attempt: Attempt[OpenedLeg]) -> OpenedLeg:
            opened = await self._dial(direction, url, attempt)
            try:
                await attempt.turn()
            except BaseException:
                opened.leg.abort()
                raise
            return opened

        return await self._race(dial_only, direction, url)

    async def _dial(self, direction: Direction, url: str, attempt: Attempt[Any]) -> OpenedLeg:
        early = EarlyMessages()
        options = self.dial_options(self.road(direction))
        leg = await dial(url, options, early, advanced=attempt.advanced)
        return OpenedLeg(leg, early, url, monotonic())

    async def _race(self, begin: Callable[[Attempt[T]], Awaitable[T]], direction: Direction, url: str) -> T:
        race = Race(begin, patience_for(self.roads.round_trips[direction].get(url, 0.0)))
        try:
            return await race.run()
        finally:
            if race.started > 1:
                self._counters.count("dials-repeated", race.started - 1)

    async def _answer(self, downstream: EarlyMessages, upstream: EarlyMessages) -> bytes:
        """Return message 2, unless a leg is closed before (a refusal shows first on the upstream leg)."""
        answer = asyncio.ensure_future(downstream.next_message())
        closed = asyncio.ensure_future(upstream.wait_closed())
        try:
            async with _deadline(self._profile.limits.handshake_timeout):
                await asyncio.wait((answer, closed), return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    # The exit closes both legs. If it gives a reason, message 2 may still be in flight.
                    await asyncio.wait((answer,), timeout=LAST_WORD)
                    if not answer.done():
                        raise upstream.loss()
                return await answer
        finally:
            for task in (answer, closed):
                task.cancel()
            await asyncio.gather(answer, closed, return_exceptions=True)


def _padding() -> bytes:
    return secrets.token_bytes(secrets.randbelow(MAX_PADDING))


@contextlib.asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """Limit the time. Raises RoadError for an exit that does not answer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise RoadError(
            f"The exit did not answer within {seconds:.0f} seconds, and refused nothing: check that both "
            "domains lead to the same exit.",
            reason="handshake-timeout",
        ) from None


async def _to_its_end(reserved: asyncio.Future[int]) -> None:
    """Wait for a timestamp that is being written: the next attempt writes to the same file."""
    await asyncio.wait((reserved,))
    if not reserved.cancelled():
        reserved.exception()  # nobody else may receive it
