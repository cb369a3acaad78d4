"""A status as people read it."""

from __future__ import annotations

import json

import pytest

from halftunnel_vpn.cli import main as cli
from halftunnel_vpn.cli.status_text import after_up, duration, volume
from halftunnel_vpn.control import requests

ROAD = {
    "urls": ["wss://a.example.org:8443/secret"],
    "legs": 1,
    "sent_bytes": 3 * 2**20,
    "received_bytes": 100,
}
STATUS = {
    "state": "connected",
    "uptime": 3725.9,
    "profile": "home",
    "device": "htvpn0",
    "round_trip": 0.0123,
    "upstream": ROAD,
    "downstream": ROAD | {"legs": 2},
    "flows": {"tcp": 3, "udp": 1},
    "dropped": {"ip-bad-checksum": 2, "udp-queue-full": 5},
    "a key of a later version": [],
}


@pytest.fixture
def answer(monkeypatch):
    """What the client's process would say; the socket is tested elsewhere."""

    def say(status):
        monkeypatch.setattr(requests, "read_status", lambda path: status)

    return say


def test_a_whole_status_is_a_few_lines_without_secrets(answer, capsys):
    answer(STATUS)
    assert cli.main(["status"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "state       connected, up 1 h 2 min, profile home, device htvpn0",
        "upstream    1 leg, sent 3.0 MiB, received 100 B, a.example.org:8443",
        "downstream  2 legs, sent 3.0 MiB, received 100 B, a.example.org:8443",
        "round trip  12.3 ms",
        "flows       3 tcp, 1 udp",
        "dropped     7 (udp-queue-full 5, ip-bad-checksum 2)",
    ]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"state": "connected"}, 0),
        ({"state": "reconnecting"}, 0),
        ({"state": "connecting"}, 3),
        (None, 3),
        ({}, 3),
    ],
)
def test_the_exit_code_tells_whether_flows_are_alive(answer, capsys, status, code):
    answer(status)
    assert cli.main(["status", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["state"] == (status or {"state": "disconnected"})["state"]


def test_quantities_are_written_for_people():
    assert [volume(n) for n in (0, 1023, 1024, 1536, 2**30, 5 * 2**41)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 GiB", "10.0 TiB",
    ]  # fmt: skip
    assert [duration(s) for s in (0.4, 59, 61, 3600, 90000)] == [
        "0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h",
    ]  # fmt: skip


def test_legs_losses_names_and_protection_are_told(answer, capsys):
    leg = {
        "number": 4, "domain": "a.example.org:8443", "address": "192.0.2.7", "round_trip": 0.02, "age": 61,
        "sent_bytes": 1024, "received_bytes": 0,
    }  # fmt: skip
    answer(
        STATUS
        | {
            "state": "reconnecting",
            "sentence": "b.example.net port 443 does not answer",
            "upstream": ROAD | {"open_legs": [leg]},
            "downstream": ROAD | {"legs": 0, "open_legs": []},
            "lost": ["downstream"],
            "dns": {"mode": "forward", "backend": "resolved", "cache_hits": 3, "cache_misses": 1},
            "protection": {"kill_switch": "on", "active": True, "verified": False},
        }
    )
    assert cli.main(["status"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == "failed      b.example.net port 443 does not answer"
    assert shown[3] == (
        f"{'':<11} leg 4: a.example.org:8443 (192.0.2.7), 20.0 ms, 1 min 1 s old, sent 1.0 KiB, received 0 B"
    )
    assert shown[5] == "lost        downstream: no leg now"
    assert "dns         forward by resolved, 3 of 4 from the cache" in shown
    assert "protection  kill switch on, active, not verified" in shown


def test_shaping_is_told_with_its_price(answer, capsys):
    shaping = {
        "wanted": "strong", "mode": "split", "state": "bulk", "sentence": "The exit allows no more.",
        "bits_per_activity": 12.6, "activities_per_hour": 30.0, "overhead": 0.104, "padding_bytes": 2**20,
        "escapes": {"bulk": 1, "oversize": 2},
    }  # fmt: skip
    answer(STATUS | {"shaping": shaping})
    assert cli.main(["status"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert (
        "shaping     split, bulk, not hidden, at most 12.6 bits an activity, 30 activities an hour, "
        "overhead 10 % (1.0 MiB)"
    ) in shown
    assert f"{'':<11} The exit allows no more." in shown
    assert "escapes     bulk 1, oversize 2" in shown
    answer(STATUS | {"shaping": shaping | {"wanted": "off"}})
    assert cli.main(["status"]) == 0
    assert "shaping" not in capsys.readouterr().out


def test_what_somebody_wants_to_know_who_has_just_connected():
    leg = {"domain": "a.example.org", "address": "192.0.2.1"}
    status = STATUS | {
        "upstream": ROAD | {"open_legs": [leg]},
        "downstream": ROAD | {"open_legs": [leg | {"domain": "b.example.net", "address": None}]},
        "dns": {"mode": "forward", "backend": "resolved"},
        "protection": {"kill_switch": "on", "active": True},
    }
    assert list(after_up(status)) == [
        "exit        a.example.org (192.0.2.1) upstream, b.example.net downstream",
        "dns         through the tunnel (forward), this host's resolver set by resolved",
        "kill switch on, active",
    ]
    off = list(after_up({"dns": {"mode": "off"}, "protection": {"kill_switch": "off"}}))
    assert off[0] == "dns         left alone" and off[1].startswith("kill switch off (kill_switch = ")
    assert list(after_up({})) == []
