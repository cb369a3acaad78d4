"""Keeps the legs of a session up: one keeper for each connection of the profile."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Sequence

from halftunnel_vpn.client.legs.circuit_breaker import Circuit
from halftunnel_vpn.client.legs.connector import Connector
from halftunnel_vpn.client.legs.early_messages import LegClosed
from halftunnel_vpn.client.legs.leg_numbers import (
    MAX_AHEAD_OF_FURTHER,
    MAX_AHEAD_OF_REPLACEMENT,
    MAX_LEG_NUMBER_AHEAD,
    LegNumbers,
)
from halftunnel_vpn.client.legs.new_session import NewLeg, NewSession
from halftunnel_vpn.client.legs.roads import domain_of
from halftunnel_vpn.client.legs.slots import Slot
from halftunnel_vpn.client.legs.urgent_slots import UrgentSlots
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HandshakeError, RoadError
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.trace_ports import trace_fields
from halftunnel_vpn.session.intervals import IntervalTable
from halftunnel_vpn.session.keepalive import LEG_SILENT
from halftunnel_vpn.session.legs import LegIdentity, SessionLeg
from halftunnel_vpn.session.liveness import round_trip_of
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.sealed_leg import LegOwner, SealedLeg

REFUSALS = 2
"""Consecutive refused joins, while there is no leg, after which the exit no longer knows the session."""

REFUSED = "leg-closed-peer-closed-1000"
"""The sign of a refusal: the exit closes cleanly without a message."""

MOVE_GRACE = 0.5
"""Seconds in addition to three round trips for draining a leg when all legs move: it may be dead."""

IDLE_CUTS = ("connection-lost", "peer-closed-")
"""Reasons of a loss that a middlebox may have caused because the leg was idle."""

log = logging.getLogger(__name__)


class LegKeepers:
    """All legs of one session. :meth:`run` ends when the session cannot be resumed.

    ``changed`` is called whenever a leg has joined or is lost. ``intervals`` learns from legs that are cut.
    """

    def __init__(
        self,
        connector: Connector,
        session: Session,
        established: NewSession,
        driver: Driver,
        counters: Counters,
        changed: Callable[[], None],
        intervals: IntervalTable,
    ) -> None:
        self._connector = connector
        self._roads = connector.roads
        self._session = session
        self._keys = established.keys
        self._trace = established.trace
        self._driver = driver
        self._counters = counters
        self._changed = changed
        self._intervals = intervals
        self._numbers = LegNumbers()
        self._refusals = 0
        self._expired = asyncio.Event()
        self._slots = [slot for direction in Direction for slot in self._make_slots(direction)]
        self._urgent_slots = UrgentSlots(driver.wheel, self._begin_urgent)
        if session.shaper is None:  # a clock has leg rules of its own
            session.urgent_legs.wanted = self._urgent_slots.wanted
        # Keeps the slots up while :meth:`run` runs.
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._roads.changed = self._wake
        for first in (established.upstream, established.downstream):
            self._place(first)

    async def run(self) -> None:
        """Keep every leg up until the session is over (ended by either side, or refused by the exit)."""
        self._counters.add_refresher(self._report)
        try:
            async with asyncio.TaskGroup() as self._group:
                for slot in self._slots:
                    self._start(slot)
                try:
                    await self._expired.wait()
                finally:
                    self._urgent_slots.close()  # no keeper may begin while the others end
                for keeper in self._tasks:
                    keeper.cancel()
        finally:
            self._group = None
            self._counters.remove_refresher(self._report)

    def expire(self) -> None:
        """Make :meth:`run` return: the session is over."""
        self._expired.set()

    def _report(self) -> None:
        for leg in self._session.legs:
            leg.report(self._counters)

    def move(self) -> None:
        """Replace every leg now. New legs start before old ones end, without pauses between attempts."""
        self._roads.forgive()
        for slot in self._slots:
            slot.move()

    def _make_slots(self, direction: Direction) -> list[Slot]:
        return [self._make_slot(direction, urls) for urls in self._roads.connections(direction)]

    def _make_slot(self, direction: Direction, urls: Sequence[str], *, is_urgent: bool = False) -> Slot:
        config = self._roads.config(direction)
        return Slot(
            direction,
            urls,
            self._roads.breakers[direction],
            random.random,
            rotate_after=config.rotate_after,
            rotate_bytes=config.rotate_bytes,
            is_urgent=is_urgent,
        )

    def _start(self, slot: Slot) -> None:
        assert self._group is not None
        task = self._group.create_task(self._keep(slot))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin_urgent(self, direction: Direction, number: int) -> Slot | None:
        """Begin to keep a further leg to the URL of leg ``number``; None where the profile wants none."""
        config = self._roads.config(direction)
        if self._group is None or self._expired.is_set():
            return None
        if not config.urgent_leg or config.spread == "weighted":
            return None
        legs = [slot.leg for slot in self._slots if slot.direction is direction and slot.leg is not None]
        if not legs:
            return None
        like = next((leg for leg in legs if leg.number == number), legs[0])
        slot = self._make_slot(direction, [like.name], is_urgent=True)
        self._slots.append(slot)
        self._start(slot)
        self._counters.count(f"urgent-legs-wanted-{direction.name.lower()}")
        return slot

    def _place(self, leg: NewLeg) -> None:
        """Assign a leg of the handshake to its slot."""
        own = [slot for slot in self._slots if slot.direction is leg.direction and slot.may_lead_to(leg.url)]
        self._serve(own[0], leg)

    def _wake(self) -> None:
        for slot in self._slots:
            slot.wake()

    async def _keep(self, slot: Slot) -> None:
        clock = self._driver.clock
        while not slot.is_closed:
            url = slot.wanted(clock())
            if url is None:
                await slot.rest()
                continue
            is_move = slot.must_move
            leg = await slot.try_to(self._attempt(slot, url))
            if leg is None:
                continue
            old = slot.leg
            self._serve(slot, leg)
            if old is not None:  # the new leg starts before the old one ends
                self._counters.count("legs-replaced")
                now = clock()
                if is_move:  # the old leg may be dead on this network
                    self._session.leg_set.retire(old, now, 3 * round_trip_of(old) + MOVE_GRACE)
                else:
                    self._session.leg_set.retire(old, now)
        self._slots.remove(slot)
        if slot.leg is not None:
            self._session.leg_set.retire(slot.leg, clock())

    async def _attempt(self, slot: Slot, url: str) -> NewLeg | None:
        """Try once to open a leg; return None if it failed, or another keeper is already trying."""
        direction = slot.direction
        breaker = self._roads.breakers[direction][url]
        began = self._driver.clock()
        if not self._numbers.may_take(direction, self._most_unanswered(slot)):
            self._keep_numbers(slot, began)
            return None
        if slot.is_urgent and breaker.circuit is not Circuit.CLOSED:
            self._give_way(slot, url)  # the next attempt is for the legs of the profile
            return None
        if not breaker.is_ready(began):
            return None  # another keeper, which woke at the same time, was first
        breaker.tried()
        try:
            leg = await self._connector.join(self._keys, direction, lambda: self._take_number(direction), url)
        except LegClosed as error:
            if error.reason == REFUSED:
                self._note(direction, error.reason, began)
                breaker.succeeded()  # the path leads to the exit
                self._refused(slot)
            else:
                self._failed(slot, url, error.reason, began)
        except (RoadError, HandshakeError) as error:
            self._failed(slot, url, error.reason, began)
        except BaseException:
            breaker.abandoned(self._driver.clock())
            raise
        else:
            self._numbers.answered(direction)
            self._refusals = 0
            breaker.succeeded()
            if self._trace is not None:
                self._trace.joined(direction, leg.number, began, leg.dialled_at)
            return leg
        return None

    def _take_number(self, direction: Direction) -> int:
        """Return the number of a leg that is about to join."""
        if not self._numbers.may_take(direction, MAX_LEG_NUMBER_AHEAD):
            self.expire()  # the exit would not accept this number
        return self._numbers.take(direction)

    def _most_unanswered(self, slot: Slot) -> float:
        """Return how many numbers in a row may be without an answer before an attempt for ``slot``."""
        if slot.must_move or all(leg.draining for leg in self._session.legs_of(slot.direction)):
            return math.inf  # if need be, the session is given up
        return MAX_AHEAD_OF_FURTHER if slot.leg is None else MAX_AHEAD_OF_REPLACEMENT

    def _keep_numbers(self, slot: Slot, now: float) -> None:
        """Let ``slot`` wait. A leg that joins in place of another one makes numbers free again."""
        self._counters.drop("join-numbers-kept")
        slot.refused(now)
        if slot.leg is None:
            joined = (other for other in self._slots if other.direction is slot.direction and other.leg)
            if other := next(joined, None):
                other.renew(now)

    def _give_way(self, slot: Slot, url: str | None = None) -> None:
        """Close the urgent leg in the direction of ``slot``, if there is one that leads to ``url``."""
        if self._urgent_slots.give_way(slot.direction, self._driver.clock(), url):
            self._counters.count(f"urgent-legs-gave-way-{slot.direction.name.lower()}")

    def _refused(self, slot: Slot) -> None:
        """Note a refused leg: the exit has restarted, it is at its limits, or only this leg is wrong."""
        self._give_way(slot)
        if slot.is_urgent:
            return
        slot.refused(self._driver.clock())
        self._refusals += 1
        self._roads.forgive()  # the exit answers, so the other direction need not wait before its attempt
        if self._session.legs:
            self._session.leg_set.doubt_all(self._driver.clock())
        elif self._refusals >= REFUSALS and not self._expired.is_set():  # a third one may come before all end
            self._counters.count("sessions-refused")
            self.expire()

    def _serve(self, slot: Slot, leg: NewLeg) -> None:
        """Make the leg carry trains until it is lost."""
        name = leg.direction.name.lower()
        clock = self._driver.clock

        def on_lost(state: SessionLeg, reason: str) -> None:
            fields = trace_fields(self._trace)
            log.info("leg lost: %s", reason, extra={"direction": name, "leg": leg.number, **fields})
            self._counters.count(f"legs-lost-{name}")
            state.report(self._counters)
            self._learn(state, reason)
            if state.round_trip is not None:
                self._roads.round_trips[state.direction][state.name] = state.round_trip
            slot.lost(state, clock())
            self._changed()

        identity = LegIdentity(
            leg.direction,
            leg.number,
            name=leg.url,
            domain=domain_of(leg.url),
            address=leg.leg.peer,
            weight=self._roads.weight(leg.direction, leg.url),
            is_urgent=slot.is_urgent,
        )
        owner = LegOwner(clock, self._counters, lost=on_lost)
        sealed = SealedLeg(leg.leg, self._session, leg.keys, identity, owner)
        slot.filled(sealed.state, clock())
        self._session.leg_joined(sealed.state, clock())
        leg.early.hand_over(leg.leg, sealed)
        self._counters.count(f"legs-joined-{name}")
        self._changed()

    def _learn(self, leg: SessionLeg, reason: str) -> None:
        """Learn an interval if the leg was cut because it was idle for too long."""
        if leg.draining:
            return
        if reason == LEG_SILENT:
            silence = leg.silence  # before the unanswered ping
        elif reason.startswith(IDLE_CUTS):
            silence = self._driver.clock() - max(leg.last_sent, leg.last_received)
        else:
            return
        self._intervals.cut(leg.domain, silence, time.time())

    def _failed(self, slot: Slot, url: str, reason: str, began: float) -> None:
        self._give_way(slot, url)
        if not slot.is_urgent:  # the legs of the profile need not wait for it
            self._roads.breakers[slot.direction][url].failed(self._driver.clock())
        self._note(slot.direction, reason, began)

    def _note(self, direction: Direction, reason: str, began: float) -> None:
        self._counters.drop(f"join-{reason}")
        if self._trace is not None:
            self._trace.join_failed(direction, reason, began)
        fields = {"direction": direction.name.lower(), **trace_fields(self._trace)}
        log.info("a leg could not be opened: %s", reason, extra=fields)
