"""A day's budget of padding counts what an earlier process has sent."""

from __future__ import annotations

import json
import time

import pytest

from halftunnel_vpn.client.padding_memory import PaddingMemory
from halftunnel_vpn.session.padding_budget import DAY, PaddingBudget

BUDGET = 1_000_000


class Shaping:
    """The budgets of both directions."""

    def __init__(self, budget: int = BUDGET) -> None:
        self.has_budget = bool(budget)
        self.budgets = {"up": PaddingBudget(budget=budget), "down": PaddingBudget(budget=budget)}

    def day_budgets(self, now: float) -> dict[str, PaddingBudget]:
        return self.budgets


def memory(now: float, shaping: Shaping) -> PaddingMemory:
    return PaddingMemory(shaping, lambda: now)  # type: ignore[arg-type]


def test_a_restart_does_not_renew_the_budget():
    before = Shaping()
    before.budgets["up"].spent(600_000, 0, 1000.0)
    before.budgets["up"].spent(300_000, 0, 1000.0 + DAY / 2)
    before.budgets["down"].spent(5, 0, 1000.0 + DAY / 2)
    old = memory(1000.0 + DAY / 2, before)
    assert old.changes == 900_005
    stored = json.loads(json.dumps(old.export()))
    after = Shaping()
    began = 7.0  # the machine was started again: its monotonic clock as well
    new = memory(began, after)
    assert new.load(stored, time.time()) == 0
    up = after.budgets["up"]
    assert up.padding_today == 900_000 and after.budgets["down"].padding_today == 5
    assert up.reason_against(100_001, began) == "budget" and not up.reason_against(99_000, began)
    assert not up.reason_against(690_000, began + DAY * 0.55), "the first part is a day old"
    assert up.reason_against(710_001, began + DAY * 0.55) == "budget"
    assert not up.reason_against(BUDGET, began + 1.2 * DAY)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        [],
        {"up": 3, "down": []},
        {"up": [[1, 2, 3]]},
        {"up": [["x", 1]]},
        {"up": [[float("nan"), 1]]},
        {"up": [[-float("inf"), 1]]},
        {"up": [[1, -1]]},
        {"up": [[0] * 2] * 61},
    ],
)
def test_what_is_invalid_is_counted_and_ignored(stored):
    shaping = Shaping()
    assert memory(5.0, shaping).load(stored, time.time()) >= 1
    assert shaping.budgets["up"].padding_today == 0


def test_what_is_older_than_a_day_is_forgotten_and_no_fault():
    shaping = Shaping()
    assert memory(5.0, shaping).load({"up": [[time.time() - 2 * DAY, 7]]}, time.time()) == 0
    assert shaping.budgets["up"].padding_today == 0


def test_a_clock_that_was_set_back_does_not_renew_the_budget():
    shaping = Shaping()
    assert memory(5.0, shaping).load({"up": [[time.time() + 9 * DAY, 7]]}, time.time()) == 0
    assert shaping.budgets["up"].padding_today == 7


def test_without_a_budget_there_is_nothing_to_write():
    shaping = Shaping(budget=0)
    shaping.budgets["up"].spent(5, 0, 1.0)
    assert memory(5.0, shaping).changes == 0
