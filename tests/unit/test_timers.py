"""The timer wheel: nothing early, nothing lost, nothing twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halftunnel_vpn.timers import GRANULARITY, Wheel


@pytest.fixture
def wheel():
    return Wheel()


@pytest.fixture
def fired():
    """Times at which a callback ran."""
    return []


def test_a_timer_fires_once_when_its_deadline_has_passed(wheel, fired):
    timer = wheel.timer(fired.append)
    assert not timer.armed and wheel.next_deadline is None
    timer.arm(10.0)
    assert timer.armed and wheel.next_deadline == pytest.approx(10.0, abs=GRANULARITY)
    wheel.run(9.9)
    assert fired == []
    wheel.run(10.0 + GRANULARITY)
    wheel.run(20.0)
    assert fired == [10.0 + GRANULARITY]
    assert not timer.armed and wheel.next_deadline is None


def test_a_deadline_in_the_past_fires_at_the_next_run(wheel, fired):
    wheel.timer(fired.append).arm(1.0)
    wheel.run(100.0)
    assert fired == [100.0]


def test_arming_again_replaces_the_deadline(wheel, fired):
    timer = wheel.timer(fired.append)
    timer.arm(1.0)
    timer.arm(5.0)
    wheel.run(2.0)
    assert fired == []
    timer.arm(3.0)
    assert wheel.next_deadline == pytest.approx(3.0, abs=GRANULARITY)
    wheel.run(3.01)
    assert fired == [3.01]


def test_a_cancelled_timer_stays_silent_and_may_be_armed_again(wheel, fired):
    timer = wheel.timer(fired.append)
    timer.cancel()
    timer.arm(1.0)
    timer.cancel()
    assert not timer.armed and wheel.next_deadline is None
    wheel.run(2.0)
    assert fired == []
    timer.arm(3.0)
    wheel.run(3.01)
    assert fired == [3.01]


def test_a_callback_may_arm_its_own_timer(wheel):
    beats = []

    def beat(now):
        beats.append(now)
        timer.arm(now + 1.0)

    timer = wheel.timer(beat)
    timer.arm(1.0)
    for now in (1.01, 2.02, 3.03):
        wheel.run(now)
    assert beats == [1.01, 2.02, 3.03]


def test_a_callback_may_cancel_a_timer_of_the_same_moment(wheel, fired):
    first = wheel.timer(lambda now: second.cancel())
    second = wheel.timer(fired.append)
    first.arm(1.0)
    second.arm(1.0)
    wheel.run(2.0)
    assert fired == []


def test_a_timer_that_a_callback_moves_from_the_same_moment_to_a_later_one_fires_then(wheel, fired):
    first = wheel.timer(lambda now: second.arm(5.0))
    second = wheel.timer(fired.append)
    first.arm(1.0)
    second.arm(1.0)
    wheel.run(2.0)
    assert fired == []
    wheel.run(5.01)
    assert fired == [5.01]


def test_what_a_callback_arms_for_a_time_that_has_passed_fires_in_the_same_run(wheel, fired):
    late = wheel.timer(fired.append)
    wheel.timer(lambda now: late.arm(1.5)).arm(1.0)
    wheel.run(2.0)
    assert fired == [2.0]


def test_the_alarm_tells_of_earlier_deadlines_alone():
    alarms = []
    wheel = Wheel(alarms.append)
    one, two, three = (wheel.timer(lambda now: None) for _ in range(3))
    one.arm(10.0)
    two.arm(20.0)
    three.arm(5.0)
    two.arm(20.0)
    assert alarms == [pytest.approx(10.0, abs=GRANULARITY), pytest.approx(5.0, abs=GRANULARITY)]


def test_a_thousand_rearmings_leave_one_deadline(wheel, fired):
    timer = wheel.timer(fired.append)
    for step in range(1000):
        timer.arm(1.0 + step)
    assert wheel.next_deadline == pytest.approx(1000.0, abs=GRANULARITY)
    wheel.run(2000.0)
    assert fired == [2000.0]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["arm", "cancel", "run"]), st.floats(0, 2)), max_size=40
    )
)
def test_the_wheel_behaves_like_a_plain_list_of_deadlines(steps):
    """A model: timers with exact deadlines. The wheel may be late by its granularity, never early."""
    wheel = Wheel()
    now = 0.0
    fired = []
    timers = [wheel.timer(lambda at, i=i: fired.append(i)) for i in range(5)]
    model: dict[int, float] = {}
    for index, action, amount in steps:
        if action == "arm":
            timers[index].arm(now + amount)
            model[index] = now + amount
        elif action == "cancel":
            timers[index].cancel()
            model.pop(index, None)
        else:
            now += amount
            wheel.run(now)
            for index in fired:
                assert model.pop(index) <= now
            fired.clear()
            assert all(deadline + GRANULARITY >= now for deadline in model.values())
        assert {i for i, timer in enumerate(timers) if timer.armed} == set(model)
        if model:
            assert wheel.next_deadline == pytest.approx(min(model.values()), abs=GRANULARITY)
        else:
            assert wheel.next_deadline is None


def test_a_timer_that_is_armed_for_now_whenever_it_fires_does_not_stop_time() -> None:
    wheel = Wheel()
    fired: list[float] = []

    def again(now: float) -> None:
        fired.append(now)
        timer.arm(now)

    timer = wheel.timer(again)
    timer.arm(1.0)
    wheel.run(1.0)
    assert fired == [1.0]
    assert wheel.next_deadline is not None and wheel.next_deadline > 1.0


def test_a_callback_that_raises_stops_no_other_and_the_error_comes_at_the_end(wheel, fired):
    def fail(now: float) -> None:
        raise RuntimeError("broken")

    wheel.timer(fail).arm(1.0)
    for deadline in (1.0, 1.5):
        wheel.timer(fired.append).arm(deadline)
    wheel.timer(fired.append).arm(9.0)
    with pytest.raises(RuntimeError, match="broken"):
        wheel.run(2.0)
    assert fired == [2.0, 2.0]
    wheel.run(9.5)
    assert fired == [2.0, 2.0, 9.5]


def test_what_callbacks_raise_is_reported(fired):
    reported: list[Exception] = []
    wheel = Wheel(failed=reported.append)

    def fail(now: float) -> None:
        timer.arm(now + 1.0)
        raise RuntimeError("broken")

    timer = wheel.timer(fail)
    timer.arm(1.0)
    wheel.timer(fired.append).arm(1.0)
    wheel.run(1.0)
    wheel.run(2.0)
    assert len(reported) == 2 and fired == [1.0]
