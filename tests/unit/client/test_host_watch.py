"""When a change of the network is one, and when the host has slept."""

from __future__ import annotations

from halftunnel_vpn.host.monitor import SuspendWatch, Way, changed

HOME = Way("wlan0", "192.168.1.1", frozenset({"192.168.1.7"}))
CABLE = Way("eth0", "192.168.1.1", frozenset({"192.168.1.8"}))


def test_another_way_is_a_change_and_no_way_is_none() -> None:
    assert not changed({"203.0.113.1": HOME}, {"203.0.113.1": HOME})
    assert changed({"203.0.113.1": HOME}, {"203.0.113.1": CABLE})
    assert not changed({"203.0.113.1": HOME}, {"203.0.113.1": None}), "there is nothing to move to"
    assert changed({"203.0.113.1": None}, {"203.0.113.1": HOME}), "it is back"
    assert not changed({}, {"203.0.113.1": HOME}), "seen for the first time"


def test_sleep_shows_between_the_two_clocks() -> None:
    clocks = {"boottime": 100.0, "monotonic": 90.0}
    watch = SuspendWatch(lambda: clocks["boottime"], lambda: clocks["monotonic"])
    clocks.update(boottime=160.0, monotonic=150.5)  # busy, and read one after the other
    assert watch.slept() == 0.0
    clocks.update(boottime=3760.0, monotonic=151.0)
    assert watch.slept() == 3599.5
    assert watch.slept() == 0.0
