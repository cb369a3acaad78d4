"""What is said of a running tunnel, by its status."""

from __future__ import annotations

from typing import Any

import pytest

from halftunnel_vpn.client.diagnosis.exit_check import address_findings
from halftunnel_vpn.client.diagnosis.finding import Outcome
from halftunnel_vpn.client.diagnosis.tunnel_check import check_dns, check_status

LEG = {"domain": "a.example:443", "round_trip": 0.02}
PATH = {"urls": ["wss://a.example:443"], "legs": 2, "open_legs": [LEG, LEG]}
OFF = {"kill_switch": "off", "active": False, "verified": False, "inbound": True}


def outcomes(**changes: Any) -> dict[str, str]:
    status = {
        "state": "connected", "device": "htvpn0", "sentence": None, "lost": [], "upstream": PATH,
        "downstream": PATH, "protection": OFF, **changes,
    }  # fmt: skip
    return {finding.subject: f"{finding.outcome} {finding.text}" for finding in check_status(status)}


def test_all_is_well() -> None:
    found = outcomes(protection={**OFF, "kill_switch": "on", "active": True, "verified": True})
    assert found == {
        "tunnel": "ok connected through htvpn0",
        "upstream": "ok 2 legs to a.example:443, round trip 20 ms",
        "downstream": "ok 2 legs to a.example:443, round trip 20 ms",
        "kill switch": "ok on, read back from the kernel",
    }


def test_one_leg_is_not_legs() -> None:
    found = outcomes(upstream={**PATH, "legs": 1, "open_legs": [LEG]})
    assert found["upstream"] == "ok 1 leg to a.example:443, round trip 20 ms"


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        ({"IPv4": "9.9.9.9", "IPv6": None}, ["ok destinations see", "ok the exit reaches no IPv6"]),
        ({"IPv4": "10.0.0.2", "IPv6": None}, ["ok the exit has 10.0.0.2 and is behind NAT", "ok the exit"]),
        ({"IPv4": None, "IPv6": None}, ["warning it has no route to the Internet"]),
    ],
)
def test_an_exit_that_reaches_nothing_is_a_warning(addresses: dict[str, Any], said: list[str]) -> None:
    found = [f"{finding.outcome} {finding.text}" for finding in address_findings(addresses)]
    assert len(found) == len(said) and all(map(str.startswith, found, said)), found


@pytest.mark.parametrize(
    ("changes", "subject", "said"),
    [
        ({"state": "reconnecting", "sentence": "no way"}, "tunnel", "failed reconnecting: no way"),
        ({"state": "blocked"}, "tunnel", "failed blocked: see `htvpn logs`"),
        ({"lost": ["upstream"]}, "upstream", "failed no leg is open to wss://a.example:443"),
        ({"downstream": {**PATH, "legs": 0, "open_legs": []}}, "downstream", "failed no leg is open"),
        ({"notices": ["the clock is wrong"]}, "notice", "warning the clock is wrong"),
        ({"protection": {**OFF, "kill_switch": "on"}}, "kill switch", "failed on, but its rules are not in"),
        (
            {"protection": {**OFF, "kill_switch": "always", "active": True}},
            "kill switch",
            "failed always, but its rules were changed",
        ),
    ],
)
def test_each_fault_has_a_line_of_its_own(changes: dict[str, Any], subject: str, said: str) -> None:
    found = outcomes(**changes)
    assert found[subject].startswith(said)
    healthy = outcomes()
    assert {name for name, text in found.items() if text != healthy.get(name)} == {subject}


@pytest.mark.parametrize(
    ("grows", "mode", "outcome"),
    [(True, "forward", Outcome.OK), (False, "forward", Outcome.FAILED), (True, "off", Outcome.SKIPPED)],
)
async def test_a_query_of_this_host_is_seen_by_the_resolver_or_not(
    grows: bool, mode: str, outcome: Outcome
) -> None:
    dns = {"mode": mode, "cache_hits": 3, "cache_misses": 4}

    async def look_up(name: str) -> object:
        dns["cache_misses"] += int(grows)
        raise OSError("no such name")

    assert (await check_dns(lambda: {"dns": dns}, look_up)).outcome is outcome
