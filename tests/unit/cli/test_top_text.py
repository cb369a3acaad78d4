"""The screen of `htvpn top` as text: every width, hostile names, missing keys."""

from __future__ import annotations

import time

import pytest

from halftunnel_vpn.cli.top import screen_text
from halftunnel_vpn.cli.top.rates import Program, Speed, StatusRates

LEG = {
    "number": 3, "domain": "a.example.org", "address": "192.0.2.7", "round_trip": 0.0123, "age": 3725,
    "sent_bytes": 1, "received_bytes": 1,
}  # fmt: skip


def status(**changes: object) -> dict[str, object]:
    road = {
        "urls": ["wss://a.example.org", "wss://spare.example.net:8443"],
        "circuits": ["closed", "open"],
        "open_legs": [LEG],
        "sent_bytes": 1,
        "received_bytes": 1,
    }
    usual = {
        "state": "connected", "since": time.time() - 61, "sentence": None, "profile": "home",
        "device": "htvpn0", "round_trip": 0.02, "upstream": road, "downstream": road, "lost": [],
        "flows": {"tcp": 2, "udp": 1, "icmp": 0},
    }  # fmt: skip
    return usual | changes


def test_the_header_says_state_flows_and_rates():
    lines = screen_text.header(status(), StatusRates(), 80, paused=False)
    assert lines[0] == "CONNECTED, home, htvpn0, for 1 min 1 s, 20.0 ms, 2 tcp 1 udp 0 icmp"
    assert [line.split()[0] for line in lines] == ["CONNECTED,", "up", "down"]
    assert "(paused)" in screen_text.header(status(), StatusRates(), 80, paused=True)[0]


def test_the_header_says_what_is_wrong():
    lines = screen_text.header(
        status(sentence="no answer\x1b[2J", notices=["clock wrong", "more"], lost=["upstream"]),
        StatusRates(), 80, paused=False,
    )  # fmt: skip
    assert lines[1:4] == ["! no answer?[2J", "! clock wrong", "! no leg upstream"]


@pytest.mark.parametrize(
    ("shaping", "line"),
    [
        ({"wanted": "off", "mode": "off"}, None),
        ({"wanted": "strong", "mode": "off"}, "shaping strong wanted, not active"),
        (
            {"wanted": "split", "mode": "split", "state": "clock", "overhead": 0.5},
            "shaping split, clock, overhead 50 %",
        ),
    ],
)  # fmt: skip
def test_shaping_is_shown_when_it_is_on(shaping, line):
    last = screen_text.header(status(shaping=shaping), StatusRates(), 80, paused=False)[-1]
    assert last == line if line else last.startswith("down")


def test_paths_have_legs_and_circuits():
    rates = StatusRates()
    rates.legs = {("upstream", 3): Speed(1536, 0)}
    head, leg, spare, *_ = screen_text.paths(status(), rates, 80)
    assert head.split() == ["PATH", "DOMAIN", "RTT", "UP/s", "DOWN/s", "AGE", "CIRCUIT"]
    assert leg.split() == ["up", "a.example.org", "12.3", "ms", "1.5K", "0", "1h", "closed"]
    assert spare.split() == ["up", "spare.example.net:8443", "no", "leg", "open"]
    assert leg.index("closed") == spare.index("open") == head.index("CIRCUIT")


@pytest.mark.parametrize("width", [20, 59, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_screen(width):
    many = Program(
        "x" * 64, 4194304, 9, 8, 7, Speed(10**12, 10**12), tuple(f"192.0.2.{n}:443" for n in range(9))
    )
    listed = screen_text.programs([many], 5, width, order="rate")
    lines = [
        *screen_text.header(status(sentence="long " * 80), StatusRates(), width, paused=True),
        *screen_text.paths(status(), StatusRates(), width),
        *listed,
    ]
    assert max(map(len, lines)) <= width
    assert listed[-1] == "and 5 more flows"
    if width >= 60:
        assert all(
            "closed" in line or "open" in line
            for line in screen_text.paths(status(), StatusRates(), width)[1:]
        )
        assert "4194304" in listed[1] and "24" in listed[1].split()


def test_programs_without_flows_and_without_a_process():
    assert screen_text.programs([], 0, 80, order="name")[1:] == ["no flows"]
    unknown = Program("(unknown)", None, 0, 2, 1, Speed(0, 0), ())
    assert screen_text.programs([unknown], 0, 80, order="name")[1].split()[-4:] == ["2", "udp,", "1", "icmp"]


def test_a_line_of_the_log_cannot_move_the_cursor():
    line = {
        "time": 0.0, "level": "info", "logger": "halftunnel_vpn.client.tunnel",
        "message": "up\x1b[2J\nand", "fields": {"session": 1},
    }  # fmt: skip
    (text,) = screen_text.log_lines([line])
    assert text.endswith("INFO tunnel: up?[2J?and session=1")


def test_a_status_of_an_unknown_version_is_shown():
    assert screen_text.header({"state": "dreaming"}, StatusRates(), 80, paused=False)[0] == "DREAMING"
    assert len(screen_text.paths({"state": "dreaming"}, StatusRates(), 80)) == 1


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (1023, "1023"), (1536, "1.5K"), (1023 * 1024, "1023.0K"), (2**41, "2.0T")]
)
def test_compact_numbers(count, text):
    assert screen_text.compact(count) == text
