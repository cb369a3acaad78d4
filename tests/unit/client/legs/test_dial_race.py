"""A dial that hangs gets another one beside it, and never two of them join."""

from __future__ import annotations

import asyncio

import pytest

from halftunnel_vpn.client.legs import dial_race
from halftunnel_vpn.client.legs.dial_race import (
    LONGEST_PATIENCE,
    MAX_ATTEMPTS,
    MAX_UNDER_WAY,
    Race,
    patience_for,
)
from halftunnel_vpn.errors import RoadError

PATIENCE = 0.02


class Road:
    """Attempts by number, each a function of the test's; notes who had the turn and who was cancelled."""

    def __init__(self, *steps):
        self.steps = steps
        self.begun = 0
        self.under_way = self.most_under_way = 0
        self.second = asyncio.Event()
        self.turns = []
        self.cancelled = []

    async def begin(self, attempt):
        number, self.begun = self.begun, self.begun + 1
        if self.begun == 2:
            self.second.set()
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.steps[min(number, len(self.steps) - 1)](self, attempt, number)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        finally:
            self.under_way -= 1
        return number

    async def run(self):
        async with asyncio.timeout(60):
            return await Race(self.begin, PATIENCE).run()


async def hang(road, attempt, number):
    await asyncio.Event().wait()


async def join(road, attempt, number):
    await attempt.turn()
    road.turns.append(number)


async def hang_joining(road, attempt, number):
    await join(road, attempt, number)
    await hang(road, attempt, number)


def fail_with(reason, *, late=False):
    async def fail(road, attempt, number):
        if late:
            await road.second.wait()
        raise RoadError(f"attempt {number}", reason=reason)

    return fail


async def test_one_that_joins_at_once_is_the_only_one():
    road = Road(join, hang)
    assert await road.run() == 0
    assert road.begun == 1 and not road.cancelled


async def test_beside_one_that_hangs_another_one_begins_and_wins():
    road = Road(hang, join)
    assert await road.run() > 0
    assert 0 in road.cancelled and road.under_way == 0


async def test_one_that_hangs_while_it_joins_is_gone_before_the_next_one_joins():
    async def join_alone(road, attempt, number):
        await attempt.turn()
        assert road.cancelled[:1] == [0], "the first one is closed by now"
        road.turns.append(number)

    road = Road(hang_joining, join_alone)
    winner = await road.run()
    assert road.turns == [0, winner]


async def test_the_newest_one_gives_way_to_a_newer_one_and_the_oldest_keeps_its_time():
    oldest_may_join = asyncio.Event()

    async def join_late(road, attempt, number):
        await oldest_may_join.wait()
        await join(road, attempt, number)

    async def release(road, attempt, number):
        if number == 2:
            oldest_may_join.set()
        await hang(road, attempt, number)

    road = Road(join_late, release)
    assert await road.run() == 0
    assert road.cancelled[0] == 1 and road.most_under_way == MAX_UNDER_WAY


async def test_attempts_are_bounded():
    over = asyncio.Event()

    async def end(road, attempt, number):
        if number == MAX_ATTEMPTS - 1:
            asyncio.get_running_loop().call_later(0.2, over.set)
        await hang(road, attempt, number)

    async def oldest(road, attempt, number):
        await over.wait()
        raise RoadError("late", reason="connect-timeout")

    road = Road(oldest, end)
    with pytest.raises(RoadError, match="late"):
        await road.run()
    assert road.begun == MAX_ATTEMPTS and road.most_under_way == MAX_UNDER_WAY and road.under_way == 0


async def test_a_failure_before_the_second_one_begins_is_the_outcome():
    with pytest.raises(RoadError, match="attempt 0"):
        await Road(fail_with("connection-refused"), join).run()


async def test_a_failure_does_not_end_the_one_beside_it():
    assert await Road(fail_with("connection-reset", late=True), join).run() > 0


async def test_when_all_fail_the_oldest_ones_reason_counts():
    road = Road(fail_with("connection-reset", late=True), fail_with("connection-refused"))
    with pytest.raises(RoadError, match="attempt 0"):
        await road.run()


async def test_the_time_out_of_the_oldest_one_ends_the_race():
    road = Road(fail_with("tls-timeout", late=True), hang)
    with pytest.raises(RoadError, match="attempt 0"):
        await road.run()
    assert road.under_way == 0


async def test_a_step_forward_gives_more_time(monkeypatch):
    async def advance(road, attempt, number):
        for _ in range(10):
            await asyncio.sleep(0.1)
            attempt.advanced()
        await join(road, attempt, number)

    road = Road(advance)
    async with asyncio.timeout(60):
        assert await Race(road.begin, 0.9).run() == 0
    assert road.begun == 1


async def test_cancelling_the_race_cancels_every_attempt():
    road = Road(hang)
    running = asyncio.ensure_future(road.run())
    await road.second.wait()
    running.cancel()
    await asyncio.wait((running,))
    assert running.cancelled() and road.under_way == 0


def test_patience_follows_the_round_trip_between_its_bounds():
    assert patience_for(0.0) == dial_race.SHORTEST_PATIENCE
    assert patience_for(0.5) == 1.5
    assert patience_for(30.0) == LONGEST_PATIENCE
