"""Another exit is used when the one in use is lost, on command, and when a preferred one is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from halftunnel_vpn.client.exits import exit_keeper
from halftunnel_vpn.client.exits.exit_keeper import ExitKeeper
from halftunnel_vpn.client.exits.exit_ranking import BY_PRIORITY, ExitChoice
from halftunnel_vpn.client.exits.exit_set import ExitSet, Reached
from halftunnel_vpn.client.exits.session_maker import SessionMaker
from halftunnel_vpn.config.exits import FailoverConfig
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HostError, RoadError

NAMES = ("one", "two", "three")
CONFIG = FailoverConfig(patience=0.5, switch_back_after=1.0)


class FakeConnector:
    """Stands for the network: an exit that answers, does not, or hangs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attempts = 0
        self.made = 0
        self.problem: str | None = None
        self.hangs = False
        self.discarded = 0
        self.shaping_wish = None

    async def new_session(self) -> Any:
        self.attempts += 1
        if self.hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if self.problem is not None:
            raise RoadError(self.problem, reason="connection-refused")
        self.made += 1
        return SimpleNamespace(discard=self._discard)

    def _discard(self) -> None:
        self.discarded += 1


class FakeConnection:
    """A connection that a test controls."""

    def __init__(self, exits: ExitSet) -> None:
        self.has_session = True
        self.lost_since: float | None = None
        self.hurries = 0
        self.used: list[str] = []
        self.changed: Callable[[], None] = lambda: None
        self._exits = exits

    def wish(self) -> None:
        return None

    def continue_with(self, reached: Reached) -> bool:
        if self.has_session:
            self._exits.ranking.in_use = reached.name
            self.used.append(reached.name)
            self.lost_since = None
        return self.has_session

    def hurry(self) -> None:
        self.hurries += 1

    def lose(self) -> None:
        self.lost_since = asyncio.get_running_loop().time()
        self.changed()


class Rig:
    def __init__(self, config: FailoverConfig = CONFIG) -> None:
        self.connectors = {name: FakeConnector(name) for name in NAMES}
        self.exits = ExitSet(cast("Any", self.connectors), (), cast("Any", None))
        self.exits.ranking.in_use = "one"
        self.connection = FakeConnection(self.exits)
        self.counters = Counters()
        clock = asyncio.get_running_loop().time
        self.keeper = ExitKeeper(
            self.exits, self.connection, config, self.counters, clock=clock, random=lambda: 0.0
        )
        self.connection.changed = self.keeper.changed
        self.task = asyncio.ensure_future(self.keeper.run())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                assert not self.task.done(), self.task
                await asyncio.sleep(0.01)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)


async def test_a_lost_exit_is_replaced_by_the_next_that_answers_after_the_patience(rig: Rig) -> None:
    rig.connectors["two"].problem = "nothing listens there"
    began = asyncio.get_running_loop().time()
    rig.connection.lose()
    await rig.until(lambda: bool(rig.connection.used))
    assert rig.connection.used == ["three"]
    assert asyncio.get_running_loop().time() - began >= CONFIG.patience
    assert rig.connectors["one"].attempts == 0  # its session may be resumed, so no other is made there
    assert rig.counters.counted["exit-failovers"] == 1
    assert rig.exits.ranking.known["two"].problem == "nothing listens there"
    assert rig.exits.ranking.known["one"].problem


async def seconds_of_failovers(rig: Rig, number: int) -> list[float]:
    """Lose the exit in use ``number`` times, each after 0.3 s; return the seconds until the next was used."""
    clock = asyncio.get_running_loop().time
    found = []
    for _ in range(number):
        rig.keeper.changed()
        await asyncio.sleep(0.3)
        began = clock()
        rig.connection.lose()
        await rig.until(lambda: len(rig.connection.used) > len(found))
        found.append(clock() - began)
    assert rig.connection.used[:4] == ["two", "one", "two", "one"]
    return found


@pytest.mark.parametrize(("proven", "grows"), [(60.0, True), (0.1, False)])
async def test_exits_that_lose_their_legs_at_once_take_turns_ever_more_slowly(
    proven: float, grows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exit_keeper, "PROVEN", proven)
    rig = Rig(FailoverConfig(patience=0.1, switch_back=False))
    try:
        seconds = await seconds_of_failovers(rig, 4 if grows else 7)
    finally:
        rig.task.cancel()
    # The third pause is at least half of 1.5 ** 2 s, less the 0.3 s before the loss; a first pause is 0.5 s.
    assert (min(seconds[3:]) > 0.7) is grows, seconds


async def test_an_exit_that_comes_back_within_the_patience_is_kept(rig: Rig) -> None:
    rig.connection.lose()
    await asyncio.sleep(CONFIG.patience / 4)
    rig.connection.lost_since = None
    rig.keeper.changed()
    await asyncio.sleep(CONFIG.patience * 1.5)
    assert [connector.attempts for connector in rig.connectors.values()] == [0, 0, 0]


async def test_an_exit_that_comes_back_while_the_next_one_is_dialled_keeps_its_flows(rig: Rig) -> None:
    release = asyncio.Event()
    two = rig.connectors["two"]
    answer = two.new_session

    async def slowly() -> Any:
        await release.wait()
        return await answer()

    two.new_session = slowly  # type: ignore[method-assign]
    rig.connection.lose()
    await asyncio.sleep(CONFIG.patience * 1.5)
    rig.connection.lost_since = None
    rig.keeper.changed()
    release.set()
    await rig.until(lambda: two.discarded == 1)
    assert rig.connection.used == []


async def test_while_the_network_is_away_the_attempts_pause_and_the_exit_in_use_comes_first(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exit_keeper, "RESUME_CHANCE", 20.0)
    for connector in rig.connectors.values():
        connector.problem = "the network is unreachable"
    rig.connection.lose()
    await rig.until(lambda: rig.connectors["three"].attempts == 2)
    assert rig.connectors["two"].attempts == 2
    rig.connectors["two"].problem = None
    await rig.until(lambda: rig.connection.hurries == 1)  # the next one answers: the old one gets its chance
    rig.connection.lost_since = None
    rig.keeper.changed()
    await rig.until(lambda: rig.connectors["two"].discarded == 1)
    assert rig.connection.used == []


async def test_a_change_of_the_network_gives_the_exit_in_use_its_patience_again(rig: Rig) -> None:
    rig.connection.lose()
    await asyncio.sleep(CONFIG.patience * 0.8)
    rig.keeper.network_changed()
    await asyncio.sleep(CONFIG.patience * 0.5)
    assert rig.connection.used == []
    await rig.until(lambda: rig.connection.used == ["two"])


async def test_a_command_uses_the_named_exit_and_then_no_other(rig: Rig) -> None:
    assert await rig.keeper.choose(ExitChoice("three")) == "three"
    assert rig.connection.used == ["three"]
    rig.connection.lose()
    await asyncio.sleep(CONFIG.patience * 2)
    assert rig.connection.used == ["three"]
    assert await rig.keeper.choose(BY_PRIORITY) == "one"


async def test_an_exit_that_does_not_answer_leaves_everything_as_it_was(rig: Rig) -> None:
    rig.connectors["two"].problem = "nothing listens there"
    with pytest.raises(HostError, match="two cannot be reached: nothing listens there; one stays in use"):
        await rig.keeper.choose(ExitChoice("two"))
    assert rig.connection.used == [] and rig.exits.ranking.choice == BY_PRIORITY


async def test_a_command_ends_an_attempt_that_hangs(rig: Rig) -> None:
    rig.connectors["two"].hangs = True
    rig.connection.lose()
    await rig.until(lambda: rig.connectors["two"].attempts == 1)
    async with asyncio.timeout(exit_keeper.ATTEMPT / 2):
        assert await rig.keeper.choose(ExitChoice("three")) == "three"


async def test_a_choice_without_a_session_is_left_to_the_attempts_of_the_connection(rig: Rig) -> None:
    rig.connection.has_session = False
    await rig.keeper.choose(ExitChoice("three"))
    assert rig.connection.hurries == 1 and rig.exits.ranking.wanted() == ["three"]
    assert rig.connectors["three"].attempts == 0


async def test_a_command_that_another_one_overtakes_has_its_sentence(rig: Rig) -> None:
    first = rig.keeper.choose(ExitChoice("two"))
    second = rig.keeper.choose(ExitChoice("three"))
    with pytest.raises(HostError, match="another exit was chosen in the meantime"):
        await first
    assert await second == "three"


async def test_the_preferred_exit_is_used_again_once_its_probes_have_answered(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([True, False, *[True] * 100])
    probed: list[str] = []

    async def probe(name: str) -> bool:
        probed.append(name)
        return next(answers)

    monkeypatch.setattr(rig.exits, "answers", probe)
    rig.connection.lose()
    await rig.until(lambda: rig.connection.used == ["two", "one"])
    assert set(probed) == {"one"} and len(probed) >= 5  # the failure in between has begun the count again
    assert rig.counters.counted["exit-switch-backs"] == 1


@pytest.mark.parametrize("steps", range(8))
async def test_a_session_that_is_made_while_the_tunnel_ends_is_closed(rig: Rig, steps: int) -> None:
    """Whatever the moment of the end is, both of its legs are closed or it is in use."""
    rig.connection.lost_since = asyncio.get_running_loop().time() - 60
    rig.keeper.changed()
    for _ in range(steps):
        await asyncio.sleep(0)
    rig.task.cancel()
    await asyncio.gather(rig.task, return_exceptions=True)
    made, discarded = (
        sum(getattr(each, what) for each in rig.connectors.values()) for what in ("made", "discarded")
    )
    assert discarded == made - len(rig.connection.used)


@pytest.mark.parametrize("steps", range(8))
async def test_a_first_session_that_is_made_while_the_tunnel_ends_is_closed(steps: int) -> None:
    connectors = {"one": FakeConnector("one")}
    exits = ExitSet(cast("Any", connectors), (), cast("Any", None))
    making = asyncio.ensure_future(SessionMaker(exits, Counters(), lambda: None).until_made(100.0))
    for _ in range(steps):
        await asyncio.sleep(0)
    making.cancel()
    (outcome,) = await asyncio.gather(making, return_exceptions=True)
    taken = isinstance(outcome, Reached)
    assert connectors["one"].discarded == connectors["one"].made - taken
