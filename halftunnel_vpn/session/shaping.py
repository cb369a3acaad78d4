"""Shaping of one sending direction: while anything is active, records of one size leave at fixed times.

    state        | what leaves                              | leads to
    -------------+------------------------------------------+---------------------------------------------
    IDLE         | nothing                                  | CLOCK when something waits
    CLOCK        | one record of one size a tick: data that | IDLE at a stop, BULK when more waits for long
                 | wait, filled up with padding             | than fits, STEPPED_DOWN when a budget ends
    BULK         | data as without shaping                  | IDLE when little is left to send
    STEPPED_DOWN | data as without shaping                  | IDLE when the budget allows padding again

What a record carries never decides when it leaves, on which leg, or how long it is. Where that cannot be
held, the record is a declared escape: counted by reason, and shown.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Final, NamedTuple

from halftunnel_vpn.protocol.interfaces import Buffer
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.records import MAX_RECORD, MAX_TRAIN, TAG_LENGTH
from halftunnel_vpn.protocol.wire import HEADER_LENGTH, PacketType, encode_header
from halftunnel_vpn.session.activity_clock import ActivityClock
from halftunnel_vpn.session.clock_parameters import SLOW_TICK, ClockParameters
from halftunnel_vpn.session.context import SessionContext
from halftunnel_vpn.session.legs import LegPolicy, Legs, SessionLeg
from halftunnel_vpn.session.padding_budget import PaddingBudget
from halftunnel_vpn.session.receipts import RECORD_COST
from halftunnel_vpn.session.stream_ids import StreamNumbers
from halftunnel_vpn.session.train import Train
from halftunnel_vpn.timers import GRANULARITY, Timer, Wheel

SURGE: Final = 32 * 1024
"""Bytes that wait on open streams and make the trickle a whole activity."""

FOLLOW: Final = 0.1
"""Seconds for which the exit's clock goes on after the last record of the client's."""

IN_FLIGHT_TIME: Final = 0.5
"""Seconds beyond a round trip that the clock may be ahead of receipts; then slots are skipped."""

FULL_ROOM: Final = 256
"""Bytes left in a record with which it still counts as full, when more waits."""

BULK_CHECK: Final = 0.1
"""Seconds between two checks whether a bulk transfer goes on,"""

BULK_QUIET: Final = 5
"""and checks in a row that must find little before it is over."""

BULK_IN_SECONDS: Final = 5
"""Seconds in a row in which so much must come in that the upstream clock becomes a slow one."""

KEEPALIVE_WAIT: Final = 0.5
"""Seconds after which a keepalive whose leg gets no slot leaves without one."""

RESUME_CHECK: Final = 60.0
"""Seconds between two checks whether a budget that has ended allows padding again."""

RESUME_TIME: Final = 20.0
"""Seconds of padding that it must allow by then,"""

RESUME_PART: Final = 10
"""or 1/N of the day's budget, where that is less."""

_ZEROS: Final = memoryview(bytes(MAX_TRAIN))


class ShaperState(enum.Enum):
    """What a direction does with what waits; see the table above."""

    IDLE = "idle"
    CLOCK = "clock"
    BULK = "bulk"
    STEPPED_DOWN = "stepped-down"


# plain names: looking up a member of an enumeration costs more
_IDLE, _CLOCK, _BULK, _STEPPED_DOWN = ShaperState


class ShapingPlan(NamedTuple):
    """What a session is shaped with. ``notify`` is called with a sentence when that changes."""

    parameters: ClockParameters
    budget: PaddingBudget
    notify: Callable[[str], None] = lambda sentence: None


class SentSlot(NamedTuple):
    """The record that is being sent: bytes of its padding, the time of its slot, and why it is an escape."""

    padding: int
    deadline: float
    escape: str


class Shaper:
    """Sends what one end of a session has to send on a clock. ``used`` has a leg watched that owes an answer.

    ``numbers`` tells that a stream was opened, ``sends`` is the direction that this end sends in.
    """

    __slots__ = (
        "_acknowledgements",
        "_bulk_quiet",
        "_bulk_sent",
        "_context",
        "_full_since",
        "_heard",
        "_heard_at",
        "_in_since",
        "_in_windows",
        "_is_whole",
        "_keepalives",
        "_legs",
        "_numbers",
        "_opened",
        "_oversize",
        "_oversize_leg",
        "_owed_slots",
        "_parameters",
        "_policy",
        "_received",
        "_scheduler",
        "_sends",
        "_step",
        "_timer",
        "_used",
        "budget",
        "clock",
        "data_bytes",
        "escapes",
        "notify",
        "padding_bytes",
        "reason",
        "sending",
        "slots",
        "slots_skipped",
        "state",
    )

    def __init__(
        self,
        plan: ShapingPlan,
        context: SessionContext,
        legs: Legs,
        policy: LegPolicy,
        used: Callable[[SessionLeg, float], None],
        numbers: StreamNumbers,
        sends: Direction,
        wheel: Wheel,
    ) -> None:
        self._parameters = plan.parameters
        self.budget = plan.budget
        self.notify = plan.notify
        self._context = context
        self._acknowledgements = context.acknowledgements
        self._acknowledgements.is_shaped = True
        self._scheduler = context.scheduler
        self._legs = legs
        self._policy = policy
        self._used = used
        self._numbers = numbers
        self._sends = sends
        self.state = _IDLE
        self.clock = ActivityClock(plan.parameters)
        # Why the state is STEPPED_DOWN: a word of PaddingBudget.
        self.reason = ""
        # Bytes of padding and of everything else in the records of the clock; slots used, and skipped.
        self.padding_bytes = self.data_bytes = 0
        self.slots = self.slots_skipped = 0
        # Records that were no slot's or had another size, by reason.
        self.escapes: dict[str, int] = {}
        # What leaves just now, for a recording; None: not in a slot.
        self.sending: SentSlot | None = None
        self._timer: Timer = wheel.timer(self._tick)
        # When the next slot is, in steps of the timer wheel.
        self._step = 0
        # Keepalives that wait for a slot of their leg, and since when.
        self._keepalives: dict[SessionLeg, tuple[float, list[bytes]]] = {}
        # Whether the cell is the whole one and not the trickle's.
        self._is_whole = True
        self._opened = 0
        # Since when more waits than fits; negative: it does not.
        self._full_since = -1.0
        # Room that a packet needs which fits no cell, on which leg, and the slots that it takes up.
        self._oversize = 0
        self._oversize_leg: SessionLeg | None = None
        self._owed_slots = 0
        # Records of the peer so far, and when the last came (``follows``).
        self._heard = 0
        self._heard_at = 0.0
        # Bytes of the other direction when its second began, and the busy seconds in a row (``bulk_in``).
        self._received = 0
        self._in_since = 0.0
        self._in_windows = 0
        self._bulk_sent = self._bulk_quiet = 0

    # --- what the session calls ------------------------------------------------------------------

    def takes(self, now: float) -> bool:
        """Return whether what waits leaves on the clock; otherwise the session sends it as it comes."""
        state = self.state
        if state is _CLOCK:
            return True
        if state is not _IDLE:
            return False
        if not (self._acknowledgements or self._scheduler) or not self._legs.senders:
            return True
        self._is_whole = self._is_surge()
        reason = self.budget.reason_against(self._rate * self._parameters.first_stop, now)
        if reason:
            self._step_down(reason, now)
            return False
        self._begin(now)
        return True

    def take_keepalive(self, leg: SessionLeg, packet: bytes, now: float) -> bool:
        """Let a keepalive ride in the next slot of ``leg``; return False if it must leave by itself."""
        if self.state is _CLOCK and leg in self._legs.senders:
            self._keepalives.setdefault(leg, (now, []))[1].append(packet)
            return True
        return False

    def close(self) -> None:
        """Stop: the session is over."""
        self._timer.cancel()
        self._keepalives.clear()

    @property
    def escape(self) -> str:
        """Why a record that leaves now without a slot does so."""
        if self.state is _BULK:
            return "bulk"
        return self.reason or "keepalive"

    # --- the clock -------------------------------------------------------------------------------

    @property
    def _rate(self) -> float:
        parameters = self._parameters
        return (parameters.cell if self._is_whole else parameters.trickle) / parameters.tick

    def _begin(self, now: float) -> None:
        """Begin an activity: the first record leaves at once."""
        self.state = _CLOCK
        self.clock.begin(now)
        self._opened = self._numbers.highest
        self._full_since = -1.0
        self._owed_slots = 0
        self._heard_at = now
        self._in_since = now
        self._received = self._bytes_received()
        self._step = math.ceil(now / GRANULARITY)
        self._arm_slot(self._parameters.tick)
        self._slot(now, now)

    def _arm_slot(self, after: float) -> None:
        """Set the time of the next slot: a time of the wheel, so that none is late by its rounding."""
        self._step += round(after / GRANULARITY)
        self._timer.arm((self._step - 0.5) * GRANULARITY)

    def _tick(self, now: float) -> None:
        if self.state is not _CLOCK:
            self._check_unshaped(now)
            return
        tick = SLOW_TICK if self._in_windows >= BULK_IN_SECONDS else self._parameters.tick
        deadline = self._step * GRANULARITY
        missed = int((now - deadline) / tick)
        if missed > 0:  # this process was held up: what it missed is not made up for
            self.slots_skipped += missed
            self._step += round(missed * tick / GRANULARITY)
            deadline = self._step * GRANULARITY
        self._arm_slot(tick)
        if self._may_stop(now):
            return
        if self._parameters.bulk_in and now - self._in_since >= 1.0:
            self._measure_incoming(now)
        if not self._is_whole and self._is_surge():
            self._is_whole = True
            self._opened = self._numbers.highest
            self.clock.stop()
            self.clock.begin(now)
        if self._owed_slots > 0:
            self._owed_slots -= 1
        else:
            self._slot(now, deadline)

    def _may_stop(self, now: float) -> bool:
        """Stop, or step down, if it is time to; return whether the clock has stopped."""
        clock, parameters = self.clock, self._parameters
        is_check = now >= clock.next_check
        if not self._legs.senders:
            self._stop(now)
            return True
        if is_check or not parameters.stops:
            is_over = clock.is_over(now, parameters.hold + self._context.round_trip)
            if is_over and not (self._acknowledgements or self._scheduler) and not self._hears(now):
                self._stop(now)
                return True
        elif parameters.follows:
            self._hears(now)
        if is_check:
            reason = self.budget.reason_against(self._rate * clock.gap_after(now), now)
            if reason:
                self._stop(now)
                self._step_down(reason, now)
                return True
            clock.advance(now)
        return False

    def _hears(self, now: float) -> bool:
        """Whether the peer's clock runs, where this one follows it."""
        if not self._parameters.follows:
            return False
        heard = 0
        for leg in self._legs.all:
            if leg.direction is not self._sends:
                heard += leg.records_received
        if heard != self._heard:
            self._heard = heard
            self._heard_at = now
        return now - self._heard_at < FOLLOW

    def _is_surge(self) -> bool:
        """Whether a stream was opened, or much waits: then the trickle is not enough."""
        if self._numbers.highest != self._opened:
            return True
        parameters = self._parameters
        return parameters.cell == parameters.trickle or self._scheduler.waits(SURGE)

    def _measure_incoming(self, now: float) -> None:
        received = self._bytes_received()
        is_bulk = received - self._received >= self._parameters.bulk_in * (now - self._in_since)
        self._in_windows = self._in_windows + 1 if is_bulk else 0
        self._received = received
        self._in_since = now

    def _bytes_received(self) -> int:
        received = 0
        for leg in self._legs.all:
            if leg.direction is not self._sends:
                received += leg.bytes_received
        return received

    def _stop(self, now: float) -> None:
        """End the activity."""
        self.state = _IDLE
        self.clock.stop()
        self._opened = self._numbers.highest
        self._in_windows = 0
        self._oversize_leg = None
        self._timer.cancel()
        self._release_keepalives(now)

    # --- one slot --------------------------------------------------------------------------------

    def _slot(self, now: float, deadline: float) -> None:
        """Send the record of this slot, whatever there is to send."""
        leg = self._choose(now)
        if leg is None:
            self.slots_skipped += 1
        else:
            parameters = self._parameters
            cell = parameters.cell if self._is_whole else parameters.trickle
            if leg is self._oversize_leg:
                self._send_oversize(leg, cell, now, deadline)
            else:
                self._send(leg, cell - TAG_LENGTH, now, deadline, "")
        if self._keepalives:
            self._release_late_keepalives(now)

    def _send_oversize(self, leg: SessionLeg, cell: int, now: float, deadline: float) -> None:
        """Send a packet that fits no cell: it takes up several slots.

        It was made when there was more room, or is one datagram that is longer.
        """
        count = math.ceil((self._oversize + TAG_LENGTH) / cell)
        self._owed_slots = count - 1
        self._oversize_leg = None
        self._escaped("oversize")
        self._send(leg, min(cell * count, MAX_RECORD) - TAG_LENGTH, now, deadline, "oversize")

    def _choose(self, now: float) -> SessionLeg | None:
        """The leg of this slot: what waits has no say in it, except a keepalive, which is for one leg."""
        most = int(self._rate * (self._context.round_trip + IN_FLIGHT_TIME))
        writable = [
            leg
            for leg in self._legs.senders
            if leg.port.writable and leg.under_way.bytes + leg.under_way.datagram_bytes < most
        ]
        if not writable:
            return None
        if len(writable) == 1:
            return writable[0]
        for leg in self._keepalives:
            if leg in writable:
                return leg
        leg_of_oversize = self._oversize_leg
        if leg_of_oversize is not None and leg_of_oversize in writable:
            return leg_of_oversize
        return self._policy.choose(writable, now)

    def _send(self, leg: SessionLeg, size: int, now: float, deadline: float, escape: str) -> None:
        """Send a train of ``size`` bytes on ``leg``."""
        # the header of the padding always has room, except behind a packet of the greatest length
        train = Train(size if escape else size - HEADER_LENGTH)
        acknowledgements, scheduler = self._acknowledgements, self._scheduler
        owed, leg.owes_proof = leg.owes_proof, False
        if acknowledgements:
            leg.owes_proof = True
            acknowledgements.write(train)
        if scheduler:
            scheduler.fill(train, leg, now)
        has_data = train.room < train.size
        if acknowledgements.riding:
            acknowledgements.write_receipts(train)
        if leg in self._keepalives:
            self._add_keepalives(train, leg)
        room = train.room
        parts: list[Buffer] = train.parts
        if escape:
            room -= HEADER_LENGTH
        if room >= 0:
            parts.append(encode_header(PacketType.PADDING, self._context.session_id, 0, 0, 0, room))
            parts.append(_ZEROS[:room])
            padding = HEADER_LENGTH + room
        else:
            padding = 0
            size -= train.room
        self.sending = SentSlot(padding, deadline, escape)
        leg.send_train(parts, now)
        self.sending = None
        leg.padding_sent += padding
        self.slots += 1
        self.padding_bytes += padding
        self.data_bytes += size - padding
        self.budget.spent(padding, size - padding, now)
        leg.under_way.sent(leg.records_sent, size + RECORD_COST, train.datagram_bytes, now)
        if leg.owes_proof:
            leg.proof_record = leg.records_sent
        leg.owes_proof = leg.owes_proof or owed
        if has_data:
            self.clock.data(now)
            if not leg.is_watched:
                self._used(leg, now)
        else:
            leg.under_way.idle()
        if not scheduler:
            self._full_since = -1.0
        elif not has_data:
            needs = scheduler.needs(leg)
            if needs > train.size:
                self._oversize = needs
                self._oversize_leg = leg
        elif room < FULL_ROOM or escape:
            self._is_full(now)
        else:
            self._full_since = -1.0

    def _is_full(self, now: float) -> None:
        """More waits than fits."""
        if self._full_since < 0:
            self._full_since = now
        elif now - self._full_since >= self._parameters.bulk_after:
            self._stop(now)
            self._escaped("bulk")
            self.state = _BULK
            self._bulk_sent = self._bytes_sent()
            self._bulk_quiet = 0
            self._timer.arm(now + BULK_CHECK)
            self._context.wake()

    # --- keepalives ------------------------------------------------------------------------------

    def _add_keepalives(self, train: Train, leg: SessionLeg) -> None:
        packets = self._keepalives[leg][1]
        while packets and len(packets[0]) <= train.room:
            packet = packets.pop(0)
            train.parts.append(packet)
            train.room -= len(packet)
        if not packets:
            del self._keepalives[leg]

    def _release_late_keepalives(self, now: float) -> None:
        late = [leg for leg, waiting in self._keepalives.items() if now - waiting[0] >= KEEPALIVE_WAIT]
        for leg in late:
            self._release(leg, now)

    def _release_keepalives(self, now: float) -> None:
        for leg in list(self._keepalives):
            self._release(leg, now)

    def _release(self, leg: SessionLeg, now: float) -> None:
        """Send the keepalives of ``leg`` without a slot, unless it is gone."""
        _, packets = self._keepalives.pop(leg)
        if leg in self._legs.all:
            for packet in packets:
                self._escaped("keepalive")
                leg.send_train([packet], now)

    # --- without the clock -----------------------------------------------------------------------

    def _check_unshaped(self, now: float) -> None:
        """Check whether the bulk transfer is over, or the budget allows padding again."""
        if self.state is _BULK:
            sent = self._bytes_sent()
            is_quiet = not self._scheduler and sent - self._bulk_sent < self._rate * BULK_CHECK
            self._bulk_quiet = self._bulk_quiet + 1 if is_quiet else 0
            self._bulk_sent = sent
            if self._bulk_quiet < BULK_QUIET:
                self._timer.arm(now + BULK_CHECK)
                return
        elif self.state is _STEPPED_DOWN:
            self._is_whole = True
            more = self._rate * RESUME_TIME
            if self.budget.budget:
                more = min(more, self.budget.budget / RESUME_PART)
            if self.budget.reason_against(more, now):
                self._timer.arm(now + RESUME_CHECK)
                return
            self.reason = ""
            self.notify("shaping goes on: the budget of padding allows it again")
        else:
            return
        self.state = _IDLE
        self._opened = self._numbers.highest
        self._context.wake()

    def _bytes_sent(self) -> int:
        sent = 0
        for leg in self._legs.senders:
            sent += leg.bytes_sent
        return sent

    def _step_down(self, reason: str, now: float) -> None:
        """Go on without shaping: a bound on padding is reached."""
        self.state = _STEPPED_DOWN
        self.reason = reason
        self._escaped(reason)
        self._timer.arm(now + RESUME_CHECK)
        self._context.counters.count(f"shaping-stepped-down-{reason}")
        what = "the day's budget" if reason == "budget" else "the hour's share"
        self.notify(f"shaping has stopped: {what} of padding is used up")
        self._context.wake()

    def _escaped(self, reason: str) -> None:
        self.escapes[reason] = self.escapes.get(reason, 0) + 1
        self._context.counters.count(f"shaping-escapes-{reason}")
