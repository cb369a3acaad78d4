"""The graphs of the web page: a point for each step, idle clients without any, and a bound."""

from __future__ import annotations

from halftunnel_vpn.server.accounting.rate_history import MAX_SERIES, POINTS, STEP, RateHistory


def test_a_point_is_the_rate_since_the_last_one_of_each_client_and_of_all():
    history = RateHistory(0.0)
    history.sample([("a", 500, 0), ("b", 0, 0)], 10.0)
    assert not any(history.of(None)["sent"]), "what was counted before the start is no rate"
    history.sample([("a", 1500, 20), ("b", 0, 3000)], 20.0)
    history.sample([("a", 1500, 20), ("b", 0, 4000)], 25.0)
    assert history.of("a") == {
        "step": STEP,
        "sent": [0] * (POINTS - 2) + [100, 0],
        "received": [0] * (POINTS - 2) + [2, 0],
    }
    assert history.of("b")["received"][-2:] == [300, 200]
    assert history.of(None)["received"][-2:] == [302, 200] and history.of(None)["sent"][-2:] == [100, 0]
    assert not any(history.of("nobody")["sent"])


def test_points_move_on_while_a_client_is_idle_and_leave_after_an_hour():
    history = RateHistory(0.0)
    total = 0
    for step in range(1, 3 * POINTS):
        total += 1000 if step in (2, 700) else 0
        history.sample([("a", total, 0)], step * STEP)
        points = history.of("a")["sent"]
        expected = [at for at in (2, 700) if step - POINTS < at <= step]
        assert [index + step - POINTS + 1 for index, value in enumerate(points) if value] == expected
    assert history.of(None)["sent"] == history.of("a")["sent"]


def test_a_meter_that_begins_again_is_no_negative_rate():
    history = RateHistory(0.0)
    for now, sent in ((10.0, 0), (20.0, 1000), (30.0, 0), (40.0, 100)):
        history.sample([("a", sent, 0)], now)
    assert history.of("a")["sent"][-3:] == [100, 0, 10]


def test_of_too_many_clients_the_one_that_was_idle_for_longest_has_no_graph():
    history = RateHistory(0.0)
    names = [f"c{number}" for number in range(MAX_SERIES)]
    history.sample([], 10.0)
    history.sample([("old", 100, 0)], 20.0)
    history.sample([(name, 100, 0) for name in names], 30.0)
    assert not any(history.of("old")["sent"])
    assert all(history.of(name)["sent"][-1] == 10 for name in names)
