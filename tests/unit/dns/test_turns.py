"""Turns of clients whose questions wait for a place on the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable

import pytest

from halftunnel_vpn.dns.turns import ClientTurns, TurnLimits
from halftunnel_vpn.errors import DnsError


class Questions:
    """Questions that stay on the network until they are answered; ``started`` is their order."""

    def __init__(self, limits: TurnLimits) -> None:
        self.turns = ClientTurns(limits)
        self.started: list[Hashable] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._answered: list[asyncio.Event] = []

    def ask(self, client: Hashable, count: int = 1) -> list[asyncio.Task[None]]:
        asked = [asyncio.create_task(self._question(client)) for _ in range(count)]
        self.tasks += asked
        return asked

    async def _question(self, client: Hashable) -> None:
        async with self.turns.turn(client):
            self.started.append(client)
            self._answered.append(asyncio.Event())
            await self._answered[-1].wait()

    async def answer(self, number: int) -> None:
        """Answer the question that started as ``number``, and let what follows from that happen."""
        self._answered[number].set()
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def questions() -> AsyncIterator[type[Questions]]:
    made: list[Questions] = []

    class Made(Questions):
        def __init__(self, limits: TurnLimits) -> None:
            super().__init__(limits)
            made.append(self)

    yield Made
    for one in made:
        for task in one.tasks:
            task.cancel()
        await asyncio.gather(*one.tasks, return_exceptions=True)
        assert (one.turns.under_way, one.turns.waiting) == (0, 0)
        assert not one.turns._waiting and not one.turns._under_way


async def test_a_client_with_slow_questions_leaves_places_to_others(questions: type[Questions]) -> None:
    made = questions(TurnLimits(per_client=3, total=6, reserve=2, few=1, waiting_per_client=9, waiting=99))
    made.ask("slow", 9)
    await settle()
    assert (made.turns.under_way, made.turns.waiting) == (3, 6)
    made.ask("modest")
    await settle()
    assert made.started[-1] == "modest"


async def test_the_reserve_is_for_clients_with_few_questions(questions: type[Questions]) -> None:
    made = questions(TurnLimits(per_client=3, total=6, reserve=2, few=1, waiting_per_client=9, waiting=99))
    made.ask("slow", 9)
    made.ask("other", 9)
    await settle()
    assert made.turns.under_way == 4
    made.ask("modest", 2)
    await settle()
    assert made.started[4:] == ["modest"]
    made.ask("another")
    await settle()
    assert made.started[4:] == ["modest", "another"]


async def test_clients_whose_questions_wait_take_turns(questions: type[Questions]) -> None:
    made = questions(TurnLimits(per_client=2, total=2, reserve=0, few=1, waiting_per_client=9, waiting=99))
    made.ask("first", 5)
    await settle()
    made.ask("second", 2)
    await settle()
    for number in range(5):
        await made.answer(number)
    assert made.started == ["first", "first", "first", "second", "first", "second", "first"]


async def test_too_many_waiting_questions_of_one_client_are_refused(questions: type[Questions]) -> None:
    made = questions(TurnLimits(per_client=1, total=2, reserve=0, few=1, waiting_per_client=2, waiting=99))
    tasks = made.ask("greedy", 5)
    await settle()
    assert [str(task.exception()) for task in tasks if task.done()] == ["dns-client-limit"] * 2
    assert made.turns.waiting == 2


async def test_where_all_wait_whoever_waits_most_gives_way(questions: type[Questions]) -> None:
    made = questions(TurnLimits(per_client=1, total=1, reserve=0, few=1, waiting_per_client=9, waiting=4))
    tasks = made.ask("greedy", 5)
    await settle()
    modest = made.ask("modest", 3)
    await settle()
    assert [str(task.exception()) for task in tasks[3:]] == ["dns-too-many-queries"] * 2
    assert [task.done() for task in modest] == [False, False, True], "not more than half"
    assert made.turns.waiting == 4


async def test_a_cancelled_question_frees_its_place_wherever_it_was(questions: type[Questions]) -> None:
    made = questions(TurnLimits(per_client=1, total=1, reserve=0, few=1, waiting_per_client=9, waiting=9))
    on_network, waiting, last = made.ask("one", 3)
    await settle()
    waiting.cancel()
    await settle()
    assert (made.turns.under_way, made.turns.waiting) == (1, 1)
    on_network.cancel()
    await settle()
    assert (len(made.started), made.turns.under_way, made.turns.waiting) == (2, 1, 0)
    assert not last.done()


async def test_a_turn_of_a_question_that_is_cancelled_then_goes_to_the_next(
    questions: type[Questions],
) -> None:
    made = questions(TurnLimits(per_client=1, total=1, reserve=0, few=1, waiting_per_client=9, waiting=9))
    _, waiting, last = made.ask("one", 3)
    await settle()
    made._answered[0].set()
    await asyncio.sleep(0)  # the turn has been given, and its task has not run
    waiting.cancel()
    await settle()
    assert len(made.started) == 2
    assert not last.done()


async def test_cancelling_all_questions_at_once_leaves_nothing(questions: type[Questions]) -> None:
    made = questions(TurnLimits(per_client=2, total=2, reserve=0, few=1, waiting_per_client=9, waiting=9))
    tasks = made.ask("one", 9)
    await settle()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (made.turns.under_way, made.turns.waiting) == (0, 0)


async def test_a_question_that_fails_frees_its_place(questions: type[Questions]) -> None:
    made = questions(TurnLimits())
    with pytest.raises(DnsError, match="dns-timeout"):
        async with made.turns.turn("one"):
            raise DnsError("dns-timeout")
    assert made.turns.under_way == 0
