"""Nothing leaves a host past its kill switch, whatever befalls it; and the eye that looks for it sees."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from lab.leaks.capture import Captures
from lab.leaks.main import survey
from lab.leaks.traffic import kinds
from lab.topology import CLIENT, OUTSIDE, OUTSIDE6, Lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

ROUNDS_SEEN = 3

SHORT_STORM = 16
"""Transitions; the long form takes 200."""


def test_without_protection_every_kind_of_traffic_is_seen_to_leak(
    lab: Lab, eventually: Callable[..., None]
) -> None:
    """Else the storm would prove nothing."""
    captures = Captures(lab)
    captures.start()
    traffic = lab.start(CLIENT, [sys.executable, "-m", "lab.leaks.traffic", "0.01"])
    everywhere = {"198.51.100.2", "2001:db8:100::2", "192.168.77.53", "fd77:3::53", "224.2.2.2", "ff0e::2"}
    everywhere |= {OUTSIDE, OUTSIDE6}

    def is_seen() -> bool:  # each tcpdump writes what it has seen in its own time
        verdict = captures.judge(lan=())
        return (
            verdict.leaked > ROUNDS_SEEN * len(kinds())
            and everywhere <= {destination for _, destination in verdict.leaks}
            and {1, 6, 17, 47, 58} <= {protocol for protocol, _ in verdict.leaks}
        )

    eventually(is_seen)
    lab.stop(traffic)
    captures.stop()


def test_whatever_befalls_the_host_nothing_leaves_it() -> None:
    """A short form of `scripts/leaks`; the seed is fixed, so that a failure can be had again."""
    report = survey(SHORT_STORM, seed=1)
    print(report)
    assert sum(report.done.values()) == SHORT_STORM
    assert report.verdict.examined > 1000
    assert report.verdict.allowed["legs"]
    for what in ("TCP connections", "datagrams", "pings", "pings of IPv6"):
        assert report.verdict.allowed[f"replies to {what} from outside"]
    assert report.calls.answered and report.calls.messages
    assert report.verdict.leaked == 0, report
