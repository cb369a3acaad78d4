"""Bounds on padding: of an hour by a part, of a day by bytes."""

from __future__ import annotations

from halftunnel_vpn.session.padding_budget import ALLOWANCE, DAY, HOUR, SLICES, PaddingBudget


def test_without_bounds_everything_is_allowed():
    budget = PaddingBudget()
    budget.spent(1 << 40, 0, 100.0)
    assert budget.reason_against(1 << 40, 100.0) == ""


def test_a_day_has_so_many_bytes_and_forgets_them_after_a_day():
    budget = PaddingBudget(budget=1000)
    budget.spent(900, 5, 100.0)
    assert budget.reason_against(100, 100.0) == ""
    assert budget.reason_against(101, 100.0) == "budget"
    assert budget.reason_against(101, 100.0 + DAY - DAY / SLICES) == "budget"
    assert budget.reason_against(1000, 100.0 + DAY + DAY / SLICES) == ""
    assert budget.padding_today == 0


def test_an_hour_has_a_part_of_its_other_bytes_beyond_the_allowance():
    budget = PaddingBudget(overhead=50)
    assert budget.reason_against(ALLOWANCE + 1, 0.0) == "overhead"
    budget.spent(ALLOWANCE, 1000, 10.0)
    assert budget.reason_against(500, 10.0) == ""
    assert budget.reason_against(501, 10.0) == "overhead"
    assert budget.hour == (ALLOWANCE, 1000)
    assert budget.reason_against(ALLOWANCE, 10.0 + HOUR + HOUR / SLICES) == ""


def test_a_clock_that_stood_still_for_years_costs_no_time():
    budget = PaddingBudget(budget=10)
    budget.spent(5, 0, 0.0)
    budget.spent(5, 0, 1e9)
    assert budget.padding_today == 5
