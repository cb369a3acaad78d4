"""Several exits of one client: the fastest one, one that is killed in mid-download, and switches."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator

import pytest
from lab.chaos.legs import Way
from lab.chaos.transfers import Transfer
from lab.daemon import LabDaemon
from lab.leaks.capture import Captures
from lab.leaks.switches import LAN, switch_and_look
from lab.several_exits import WAYS, LabExits, row
from lab.target import start_target
from lab.topology import CLIENT, TARGET_ADDRESS, Lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

ROUND_TRIPS = {"one": 0.060, "two": 0.020, "three": 0.120}

NEW_FLOWS_WITHIN = 5.0
"""Seconds from the end of the exit in use until a new flow has its answer."""

NEW_FLOWS_WITHIN_SILENCE = 15.0
"""The same where nothing tells of its end: its legs are given up for want of answers first."""

SHORT = 6
"""Switches; the long form of `scripts/leaks --switches` makes 200."""


@pytest.fixture(scope="module")
def lab(no_leftovers: None) -> Iterator[Lab]:
    with Lab() as made:
        start_target(made)
        yield made


@pytest.fixture(scope="module")
def exits(lab: Lab) -> LabExits:
    edits = {
        "protection": {"kill_switch": '"always"', "allow_lan": "false"},
        "failover": {"switch_back_after": '"2s"'},
    }
    made = LabExits(lab, ROUND_TRIPS, profile=edits)
    made.start()
    return made


@pytest.fixture(scope="module")
def daemon(lab: Lab, exits: LabExits) -> Iterator[LabDaemon]:
    made = LabDaemon(lab, exits.profile)
    made.start()
    yield made
    made.down()
    assert made.stop() == 0
    assert "Traceback" not in made.output()


def htvpn(daemon: LabDaemon, *arguments: str, check: bool = True) -> str:
    argv = [sys.executable, "-m", "halftunnel_vpn.cli", *arguments, "--socket", daemon.socket]
    return daemon.lab.run(CLIENT, argv, check=check, timeout=120).stdout


def new_flow(lab: Lab) -> bool:
    """Whether a new connection has its answer within a second."""
    try:
        with lab.inside(CLIENT), socket.create_connection((TARGET_ADDRESS, 80), timeout=1) as connection:
            connection.sendall(f"HEAD /small.txt HTTP/1.0\r\nHost: {TARGET_ADDRESS}\r\n\r\n".encode())
            return connection.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


def seconds_to_new_flow(lab: Lab, began: float) -> float:
    while not new_flow(lab):
        time.sleep(0.02)
        assert time.monotonic() - began < 60, "no new flow within a minute"
    return time.monotonic() - began


def test_the_fastest_exit_is_measured_and_chosen(daemon: LabDaemon) -> None:
    assert htvpn(daemon, "up", "laptop", "--fastest").splitlines()[0].endswith("exit two, device htvpn0")
    measured = json.loads(htvpn(daemon, "exits", "--json"))
    assert [each["name"] for each in measured] == ["one", "two", "three"]
    assert row(measured, "two")["state"] == "in use"
    for name, seconds in ROUND_TRIPS.items():
        assert seconds <= row(measured, name)["round_trip"] < seconds + 0.05
    shown = htvpn(daemon, "status")
    assert "two, in use" in shown and "three, ready" in shown


def test_an_exit_that_is_killed_in_mid_download_is_replaced_without_a_leak(
    lab: Lab, exits: LabExits, daemon: LabDaemon
) -> None:
    htvpn(daemon, "up", "laptop", "--fastest")
    captures = Captures(lab, further=WAYS)
    captures.start()
    traffic = lab.start(CLIENT, [sys.executable, "-m", "lab.leaks.traffic", "0.05"])
    with Transfer(lab, Way.DOWN, 1 << 40) as download:
        while download.position < 5_000_000:
            assert not download.errors, download.errors
            time.sleep(0.01)
        took = seconds_to_new_flow(lab, exits.kill("two"))
        while not download.is_done:  # its target sees another address: the flow is reset
            time.sleep(0.01)
        assert any("reset" in error.lower() for error in download.errors), download.errors
    lab.stop(traffic)
    captures.stop()
    verdict = captures.judge(lan=LAN)
    print(f"new flows {took:.2f} s after the exit was killed; {verdict.examined} packets examined")
    assert took < NEW_FLOWS_WITHIN
    assert verdict.leaked == 0, verdict
    assert verdict.allowed["legs"] > 1000
    status = daemon.status()
    assert (status["state"], status["exit"]) == ("connected", "one")
    assert row(status["exits"], "two")["state"] == "unreachable"
    assert "connecting" not in [event["state"] for event in daemon.events()][-2:]
    exits.start("two")


def test_priority_decides_again_once_an_exit_that_fell_silent_is_back(
    lab: Lab, exits: LabExits, daemon: LabDaemon
) -> None:
    htvpn(daemon, "up", "laptop")
    assert daemon.status()["exit"] == "one"
    with Transfer(lab, Way.DOWN, 1 << 40) as download:
        while download.position < 1_000_000:
            time.sleep(0.01)
        took = seconds_to_new_flow(lab, exits.swallow("one"))
    print(f"new flows {took:.2f} s after the exit fell silent")
    assert took < NEW_FLOWS_WITHIN_SILENCE
    assert daemon.status()["exit"] == "two"
    exits.swallow("one", 0)
    deadline = time.monotonic() + 60
    while daemon.status()["exit"] != "one":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert new_flow(lab)


def test_a_named_exit_is_kept_and_one_that_cannot_be_reached_changes_nothing(
    lab: Lab, exits: LabExits, daemon: LabDaemon
) -> None:
    assert htvpn(daemon, "switch", "three") == "the exit three is used\n"
    assert daemon.status()["exit"] == "three" and new_flow(lab)
    exits.kill("two")
    argv = [sys.executable, "-m", "halftunnel_vpn.cli", "switch", "two", "--socket", daemon.socket]
    refused = lab.run(CLIENT, argv, check=False, timeout=120)
    assert refused.returncode == 1 and "three stays in use" in refused.stderr
    assert daemon.status()["exit"] == "three" and new_flow(lab)
    exits.start("two")
    assert htvpn(daemon, "switch") == "the exit one is used\n"


def test_switches_under_the_kill_switch_leak_nothing(lab: Lab, exits: LabExits, daemon: LabDaemon) -> None:
    """A short form of `scripts/leaks --switches`."""
    htvpn(daemon, "up", "laptop")
    report = switch_and_look(lab, daemon, SHORT, seed=1, further=WAYS)
    print(report)
    assert sum(report.done.values()) == SHORT
    assert report.verdict.allowed["legs"] > 100
    assert report.verdict.leaked == 0, report
