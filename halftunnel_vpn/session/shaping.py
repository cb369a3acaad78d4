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

import math
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.protocol.records import TAG_LENGTH
from halftunnel_vpn.session.activity_clock import ActivityClock
from halftunnel_vpn.session.context import SessionContext
from halftunnel_vpn.session.legs import Legs, SessionLeg
from halftunnel_vpn.session.peer_traffic import PeerTraffic
from halftunnel_vpn.session.shaping_plan import (
    BULK_CHECK,
    BULK_QUIET,
    RESUME_CHECK,
    RESUME_PART,
    RESUME_TIME,
    ShaperState,
    ShapingPlan,
)  # fmt: skip
from halftunnel_vpn.session.slot_writer import HELD_FOR, SlotWriter
from halftunnel_vpn.session.stream_ids import StreamNumbers
from halftunnel_vpn.timers import GRANULARITY, Timer, Wheel

SURGE: Final = 32 * 1024
"""Bytes that wait on open streams and make the trickle a whole activity."""

IN_FLIGHT_TIME: Final = 0.5
"""Seconds beyond a round trip that the clock may be ahead of receipts; then slots are skipped."""

# plain names: looking up a member of an enumeration costs more
_IDLE, _CLOCK, _BULK, _STEPPED_DOWN = ShaperState


class Shaper:
    """Sends the data of one end of a session on a clock. ``used`` watches a leg that owes an answer.

    ``numbers`` shows that a stream was opened.
    """

    __slots__ = (
        "_acknowledgements", "_backlog", "_bulk_quiet", "_bulk_sent", "_context", "_legs",
        "_numbers", "_opened", "_owed_slots", "_parameters", "_peer", "_policy",
        "_quiet", "_scheduler", "_slot_at", "_step", "_timer", "_used", "began", "budget", "clock", "notify",
        "reason", "slots_skipped", "state", "writer",
    )  # fmt: skip

    def __init__(
        self,
        plan: ShapingPlan,
        context: SessionContext,
        legs: Legs,
        used: Callable[[SessionLeg, float], None],
        numbers: StreamNumbers,
        wheel: Wheel,
        now: float,
    ) -> None:
        self.began = now
        self._parameters = plan.parameters
        self.budget = plan.budget
        self.notify = plan.notify
        self._context = context
        self._acknowledgements = context.acknowledgements
        self._acknowledgements.is_shaped = True
        self._scheduler = context.scheduler
        self._legs = legs
        self._policy = legs.policy
        self._used = used
        self._numbers = numbers
        self._peer = PeerTraffic(legs, context.sends)
        self.state = _IDLE
        self.clock = ActivityClock(plan.parameters)
        # Seconds without data before which it does not stop; infinite: it stops at fixed times.
        self._quiet = math.inf if plan.parameters.stops else plan.parameters.hold
        # Why the state is STEPPED_DOWN: a word of PaddingBudget.
        self.reason = ""
        self.writer = SlotWriter(context, legs, plan.budget)
        self.slots_skipped = 0  # because no leg could be written
        self._timer: Timer = wheel.timer(self._tick)
        # When the next slot is, in steps of the timer wheel.
        self._step = 0
        self._opened = 0
        # Seconds for which more waited than fits, less those for which it did not.
        self._backlog = 0.0
        self._slot_at = 0.0  # when the last record left
        self._owed_slots = 0  # that a record took up beside its own
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
        clock = self.clock
        clock.is_whole = self._is_surge()
        reason = self.budget.reason_against(clock.bytes_between(0.0, self._parameters.first_stop), now)
        if reason:
            self._step_down(reason, now)
            return False
        self._begin(now)
        return True

    def take_keepalive(self, leg: SessionLeg, packet: bytes, now: float) -> bool:
        """Let a keepalive ride in the next slot of ``leg``; return False if it must leave by itself."""
        if self.state is _CLOCK and leg in self._legs.senders:
            self.writer.hold_keepalive(leg, packet, now)
            return True
        return False

    def close(self) -> None:
        """Stop: the session is over."""
        self._timer.cancel()
        self.writer.clear()

    @property
    def escape(self) -> str:
        """Why a record that leaves now without a slot does so."""
        if self.state is _BULK:
            return "bulk"
        return self.reason or "keepalive"

    @property
    def explanation(self) -> str:
        """Why the state is STEPPED_DOWN, in words."""
        what = "the day's budget" if self.reason == "budget" else "the hour's share"
        return f"{what} of padding is used up"

    # --- the clock -------------------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        """Begin an activity: the first record leaves at once, and those of the clock from the next step on.

        What follows the first packet of a stream, such as a TLS hello, is there within a millisecond.
        """
        self.state = _CLOCK
        self.clock.begin(now)
        self._opened = self._numbers.highest
        self._backlog = 0.0
        self._slot_at = now
        self._owed_slots = 0
        self._peer.begin(now)
        self._step = math.floor(now / GRANULARITY) + 1
        self._step += 0 if self.clock.is_whole else self.clock.steps
        self._timer.arm((self._step - 0.5) * GRANULARITY)  # a time of the wheel: its rounding makes none late
        self._slot(now, now)

    def _tick(self, now: float) -> None:
        if self.state is not _CLOCK:
            self._check_unshaped(now)
            return
        clock = self.clock
        deadline = self._step * GRANULARITY
        if deadline >= clock.pace_until:
            clock.set_pace(deadline)
        records, steps = clock.records, clock.steps
        missed = int((now - deadline) / (steps * GRANULARITY))
        if missed > 0:  # this process was held up: what it missed is not made up for
            self.slots_skipped += missed
            self._step += missed * steps
            deadline = self._step * GRANULARITY
        self._step += steps
        self._timer.arm((self._step - 0.5) * GRANULARITY)
        if now >= clock.next_check or now - clock.last_data >= self._quiet or not self._legs.senders:
            if self._may_stop(now):
                return
        if not clock.is_whole and self._is_surge():
            clock.is_whole = True
            self._opened = self._numbers.highest
            clock.stop()
            clock.begin(now)
        for _ in range(records):
            if self._owed_slots > 0:
                self._owed_slots -= 1
            elif self.state is _CLOCK:
                self._slot(now, deadline)

    def _may_stop(self, now: float) -> bool:
        """Stop, or step down, if it is time to; return whether the clock has stopped."""
        clock, parameters = self.clock, self._parameters
        is_check = now >= clock.next_check
        if not self._legs.senders:
            self._stop(now)
            return True
        quiet = now - clock.last_data
        if (is_check or not parameters.stops) and quiet >= parameters.hold + self._context.round_trip:
            is_followed = parameters.follows and self._peer.is_heard(now)
            if not (is_followed or self._acknowledgements or self._scheduler):
                self._stop(now)
                return True
        if is_check:
            self.writer.settle(now)
            passed = clock.passed(now)
            reason = self.budget.reason_against(
                clock.bytes_between(passed, passed + clock.gap_after(now)), now
            )
            if reason:
                self._stop(now)
                self._step_down(reason, now)
                return True
            clock.advance(now)
        return False

    def _is_surge(self) -> bool:
        """Return whether a stream was opened, or much waits: then the trickle is not enough."""
        if self._numbers.highest != self._opened:
            return True
        parameters = self._parameters
        return parameters.cell == parameters.trickle or self._scheduler.waits(SURGE)

    def _stop(self, now: float) -> None:
        """End the activity."""
        self.writer.settle(now)
        self.state = _IDLE
        self.clock.stop()
        self._opened = self._numbers.highest
        for leg in self._legs.senders:
            leg.under_way.is_clocked = False
        self.writer.oversize_leg = None
        self._timer.cancel()
        self.writer.release_keepalives(now)

    # --- one slot --------------------------------------------------------------------------------

    def _slot(self, now: float, deadline: float) -> None:
        """Send the record of this slot, whatever there is to send."""
        writer = self.writer
        leg = self._choose(now)
        if leg is None:
            self.slots_skipped += 1
            writer.held_until = now + HELD_FOR
        else:
            parameters = self._parameters
            cell = parameters.cell if self.clock.is_whole else parameters.trickle
            if leg is writer.oversize_leg:
                self._owed_slots = writer.send_oversize(leg, cell, now, deadline) - 1
                has_data = True
            else:
                has_data = writer.send(leg, cell - TAG_LENGTH, now, deadline)
            if has_data:
                self.clock.last_data = now
                if not leg.is_watched:
                    self._used(leg, now)
            passed = now - self._slot_at
            self._slot_at = now
            if writer.is_full:
                self._note_backlog(now, passed)
            elif self._backlog:
                self._backlog = max(self._backlog - passed, 0.0)
        if writer.keepalives:
            writer.release_late_keepalives(now)

    def _choose(self, now: float) -> SessionLeg | None:
        """The leg of this slot: what waits has no say in it, except a keepalive, which is for one leg."""
        most = int(self.clock.highest_rate * (self._context.round_trip + IN_FLIGHT_TIME))
        senders = self._legs.senders
        if len(senders) == 1:
            return senders[0] if senders[0].takes(most) else None
        writable = [leg for leg in senders if leg.takes(most)]
        if not writable:
            return None
        if len(writable) == 1:
            return writable[0]
        wanted = self.writer.leg_of_keepalive(writable) or self.writer.oversize_leg
        if wanted is not None and wanted in writable:
            return wanted
        return self._policy.choose(writable, now)

    def _note_backlog(self, now: float, passed: float) -> None:
        """Let what waits go without the clock if more waits for long than fits, or would have to.

        The record before left ``passed`` seconds ago.
        """
        self._backlog += passed
        after = self._parameters.bulk_after
        if self._backlog >= after or self._scheduler.waits(int(self._parameters.rate * after)):
            self._stop(now)
            self.writer.escaped("bulk")
            self.state = _BULK
            self._bulk_sent = self._bytes_sent()
            self._bulk_quiet = 0
            self._timer.arm(now + BULK_CHECK)
            self._context.wake()

    # --- without the clock -----------------------------------------------------------------------

    def _check_unshaped(self, now: float) -> None:
        """Check whether the bulk transfer is over, or the budget allows padding again."""
        if self.state is _BULK:
            sent = self._bytes_sent()
            # what nothing has acknowledged may have to be sent again: on the clock that would take long
            waits = bool(self._scheduler) or any(leg.outstanding for leg in self._legs.senders)
            is_quiet = not waits and sent - self._bulk_sent < self._parameters.rate * BULK_CHECK
            self._bulk_quiet = self._bulk_quiet + 1 if is_quiet else 0
            self.budget.spent(0, max(sent - self._bulk_sent, 0), now)
            self._bulk_sent = sent
            if self._bulk_quiet < BULK_QUIET:
                self._timer.arm(now + BULK_CHECK)
                return
        elif self.state is _STEPPED_DOWN:
            self.clock.is_whole = True
            more = self._parameters.rate * RESUME_TIME
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
        self.writer.escaped(reason)
        self._timer.arm(now + RESUME_CHECK)
        self._context.counters.count(f"shaping-stepped-down-{reason}")
        self.notify(f"shaping has stopped: {self.explanation}")
        self._context.wake()
