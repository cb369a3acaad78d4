"""Any interleaving of what users, legs and the clock may do: every stream equals its model.

The model of one way of a stream is what was written to it. What arrives is always a beginning of that; in the
end it is the whole, once, unless one of the two users has reset the stream.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import ResetCode, StreamKind
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.memory_budget import Memory

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "40"))
STEPS = int(os.environ.get("MODEL_STEPS", "50"))

POOL = 2 * 1024 * 1024
MEMORY = 4 * 1024 * 1024
MAX_LEGS = 4
"""Legs of one direction at once."""

choices = st.integers(0, 1 << 30)
ways = st.sampled_from(list(Direction))


@dataclass
class Way:
    """One way of a stream: what its writer wrote, and whether it has finished."""

    written: bytearray = field(default_factory=bytearray)
    is_finished: bool = False


class Model:
    """One stream, as it should be; ``users`` are the client's and, once it knows, the exit's."""

    def __init__(self, user: Any) -> None:
        self.client = user
        self.ways = {"client": Way(), "exit": Way()}
        self.is_reset = False
        self.is_refused = False


class Machine(RuleBasedStateMachine):
    """A client and an exit, joined by legs that come and go."""

    def __init__(self, make_pair: Callable[..., Any]) -> None:
        super().__init__()
        self.memory = Memory(MEMORY)
        self.pair = make_pair(
            0,
            0,
            limits=SessionLimits(window_pool=POOL, max_streams=30),
            exit_limits=SessionLimits(window_pool=POOL, max_streams=30, memory=self.memory),
        )
        self.models: dict[int, Model] = {}
        self.written = 0

    @initialize()
    def begin(self) -> None:
        for direction in Direction:
            self.join(direction)

    # --- legs ------------------------------------------------------------------------------------

    def near_ends(self, direction: Direction) -> list[Any]:
        return [leg for leg in self.pair.legs if leg.state.direction is direction and leg.owner.is_client]

    def join(self, direction: Direction) -> None:
        if len(self.near_ends(direction)) < MAX_LEGS:
            for end in self.pair.add_leg(direction):
                end.on_close = self.pair.hang_up

    @rule(direction=ways)
    def a_leg_is_born(self, direction: Direction) -> None:
        self.join(direction)

    @rule(choice=choices, lose=st.booleans())
    def a_leg_dies(self, choice: int, lose: bool) -> None:
        if self.pair.legs:
            self.pair.kill(self.pair.legs[choice % len(self.pair.legs)], lose=lose)

    @rule(choice=choices, kept=st.integers(0, 3))
    def a_leg_dies_in_the_middle(self, choice: int, kept: int) -> None:
        """Of what is on the road, so many trains still arrive."""
        if self.pair.legs:
            leg = self.pair.legs[choice % len(self.pair.legs)]
            for _ in range(kept):
                self.carry(leg)
            self.pair.kill(leg)

    @rule(choice=choices)
    def one_end_notices_first(self, choice: int) -> None:
        """The other end goes on sending into nothing for a while."""
        live = [leg for leg in self.pair.legs if leg.alive]
        if live:
            leg = live[choice % len(live)]
            self.pair.swallow(leg)
            self.pair.legs.remove(leg)
            leg.owner.leg_lost(leg.state, self.pair.now)
            leg.peer.on_close = self.pair.hang_up

    @rule(choice=choices)
    def a_leg_swallows_everything(self, choice: int) -> None:
        live = [leg for leg in self.pair.legs if leg.alive]
        if live:
            self.pair.swallow(live[choice % len(live)])

    @rule(direction=ways)
    def a_leg_is_rotated(self, direction: Direction) -> None:
        """The new one comes before the old one goes, which goes when all it has carried is acknowledged."""
        old = self.near_ends(direction)
        if old:
            self.join(direction)
            self.pair.client.leg_set.retire(old[0].state, self.pair.now)

    def carry(self, leg: Any) -> None:
        """One train arrives."""
        if leg.alive and leg.road:
            leg.peer.owner.train_received(leg.peer.state, memoryview(leg.road.popleft()), self.pair.now)
            leg.writable = len(leg.road) < leg.capacity

    @rule(choice=choices, count=st.integers(1, 8))
    def one_leg_delivers(self, choice: int, count: int) -> None:
        """The others are slower: trains of different legs overtake each other."""
        busy = [leg for leg in self.pair.legs if leg.road]
        if busy:
            for _ in range(count):
                self.carry(busy[choice % len(busy)])

    @rule()
    def acknowledgements_arrive(self) -> None:
        """Only what comes back."""
        for leg in list(self.pair.legs):
            if leg.owner.is_client is (leg.state.direction is Direction.UPSTREAM):
                continue
            while leg.road and leg.alive:
                self.carry(leg)

    @rule()
    def both_pump(self) -> None:
        self.pair.client.pump(self.pair.now)
        self.pair.exit.pump(self.pair.now)

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.5, 3.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        """Nothing arrives meanwhile."""
        pair = self.pair
        end = pair.now + seconds
        while (deadline := pair.wheel.next_deadline) is not None and deadline <= end:
            pair.now = max(pair.now, deadline)
            pair.wheel.run(pair.now)
            pair.client.pump(pair.now)
            pair.exit.pump(pair.now)
        pair.now = end

    # --- users -----------------------------------------------------------------------------------

    @precondition(lambda self: len(self.models) < 20)
    @rule(answer=st.sampled_from([None, None, None, ResetCode.REFUSED]))
    def the_client_opens(self, answer: ResetCode | None) -> None:
        user = self.pair.ask(StreamKind.TCP)
        model = self.models[user.stream.stream_id] = Model(user)
        if answer is not None:
            # the exit refuses by the port's number, whenever the request may reach it
            self.pair.refused_ids.add(user.stream.stream_id)
            model.is_refused = True

    def pick(self, choice: int, side: str) -> tuple[Model, Any] | None:
        known = [
            (model, user)
            for number, model in self.models.items()
            if (user := model.client if side == "client" else self.pair.exit_users.get(number)) is not None
        ]
        return known[choice % len(known)] if known else None

    @rule(
        choice=choices, side=st.sampled_from(["client", "exit"]), size=st.sampled_from([1, 50, 3000, 70_000])
    )
    def a_user_writes(self, choice: int, side: str, size: int) -> None:
        found = self.pick(choice, side)
        if found is None:
            return
        model, user = found
        way = model.ways[side]
        size = min(size, user.stream.room)
        has_refused = model.is_refused and side == "exit"
        if size and not way.is_finished and not model.is_reset and not has_refused and not over(user):
            data = (self.written.to_bytes(8, "big") * (size // 8 + 1))[:size]
            self.written += 1
            user.stream.send(data)
            way.written += data

    @rule(choice=choices, side=st.sampled_from(["client", "exit"]))
    def a_user_finishes(self, choice: int, side: str) -> None:
        found = self.pick(choice, side)
        if found is not None and not over(found[1]):
            found[1].stream.finish()
            found[0].ways[side].is_finished = True

    @rule(choice=choices, side=st.sampled_from(["client", "exit"]), often=st.integers(0, 3))
    def a_user_resets(self, choice: int, side: str, often: int) -> None:
        found = self.pick(choice, side) if not often else None
        if found is not None:
            found[1].stream.reset(ResetCode.NORMAL)
            found[0].is_reset = True

    @rule(choice=choices, side=st.sampled_from(["client", "exit"]))
    def a_reader_stalls_or_goes_on(self, choice: int, side: str) -> None:
        found = self.pick(choice, side)
        if found is not None:
            if found[1].reads:
                found[1].reads = False
            else:
                found[1].read_all()

    # --- what always holds -----------------------------------------------------------------------

    @invariant()
    def what_arrived_is_a_beginning_of_what_was_written(self) -> None:
        for number, model in self.models.items():
            exit_user = self.pair.exit_users.get(number)
            if exit_user is not None:
                assert model.ways["client"].written.startswith(exit_user.received)
            assert model.ways["exit"].written.startswith(model.client.received)
            for user in (model.client, exit_user):
                if user is not None and over(user):
                    assert model.is_reset or model.is_refused, user.events
                assert user is None or len(user.events) == len(set(user.events)), user.events

    @invariant()
    def nobody_broke_a_rule(self) -> None:
        assert not self.pair.client_counters.dropped
        assert not set(self.pair.exit_counters.dropped) - {"packet-before-open"}

    @invariant()
    def bounds_hold(self) -> None:
        for session in (self.pair.client, self.pair.exit):
            assert 0 <= session.context.window_pool.available <= POOL
        assert 0 <= self.memory.used <= MEMORY + 30 * 20_000

    def teardown(self) -> None:
        """The roads mend: everything that was written arrives, and nothing is left behind."""
        pair = self.pair
        for direction in Direction:
            self.join(direction)
        pair.settle(shuffle=True)
        for number, model in self.models.items():
            for user in (model.client, pair.exit_users.get(number)):
                if user is not None:
                    user.read_all()
                    user.reads = True
        # a leg that swallows everything has to be found out, and a lost last packet to be missed
        pair.advance(90.0)
        for direction in Direction:
            self.join(direction)
        pair.advance(60.0)
        for number, model in self.models.items():
            if model.is_reset or model.is_refused:
                continue
            exit_user = pair.exit_users[number]
            assert exit_user.received == model.ways["client"].written
            assert model.client.received == model.ways["exit"].written
            assert ("finished" in exit_user.events) is model.ways["client"].is_finished
            assert ("finished" in model.client.events) is model.ways["exit"].is_finished
        for number, model in self.models.items():
            model.client.stream.finish()
            if number in pair.exit_users:
                pair.exit_users[number].stream.finish()
        pair.advance(30.0)
        assert not pair.client.streams and not pair.exit.streams
        assert pair.client.context.window_pool.available == pair.exit.context.window_pool.available == POOL
        assert self.memory.used == 0
        pair.client.close(ResetCode.SHUTDOWN, pair.now, tell_peer=False)
        pair.exit.close(ResetCode.SHUTDOWN, pair.now, tell_peer=False)


def over(user: Any) -> bool:
    """Whether the user was told that its stream is over."""
    return any(event.startswith(("aborted", "refused")) for event in user.events)


@pytest.mark.timeout(3600)
def test_streams_equal_their_model(make_pair: Callable[..., Any]) -> None:
    """For longer: ``MODEL_EXAMPLES=20000 MODEL_STEPS=100 pytest tests/scenario/session/test_model.py``."""
    run_state_machine_as_test(
        lambda: Machine(make_pair),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
