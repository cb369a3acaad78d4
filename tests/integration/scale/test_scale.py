"""The measurement of many clients, in its short form: it runs, and its figures grow as they should."""

from __future__ import annotations

import json

import pytest
from lab.scale.main import main

CLIENTS = (10, 40)

MB = 1_000_000


@pytest.mark.alone
def test_an_exit_carries_all_clients_and_its_costs_grow_in_proportion(capsys):
    words = ["--clients", *map(str, CLIENTS), "--seconds", "1", "--processes", "2", "--json"]
    assert main(words) == 0
    few, many = json.loads(capsys.readouterr().out)["rows"]
    assert (few["clients"], many["clients"]) == CLIENTS
    for row in (few, many):
        assert row["failed_requests"] == row["refused_joins"] == 0
        assert 0 < row["request_median"] <= row["request_p99"] < 5
        assert row["load_carried"] > row["load_wanted"] / 3
        assert row["processor_idle"] < 0.5
    # A client costs no more among many; bounds are wide, because pages are coarse.
    assert many["memory"] - many["memory_at_rest"] < CLIENTS[1] * 0.6 * MB


def test_replicas_share_one_list_and_each_restarts_alone(capsys):
    words = ["--replicas", "2", "--clients", "12", "--processes", "2", "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert sum(report["clients"]) == 12 and report["legs"] == [2 * clients for clients in report["clients"]]
    assert report["others_absence"] == [0.0, 0.0], "nobody else is concerned"
    # How long is a matter of the machine: the measurement itself fails where a client does not come back.
    for clients, absence in zip(report["clients"], report["longest_absence"], strict=True):
        assert (absence > 0.0) == (clients > 0)


@pytest.mark.alone
def test_clients_on_clocks_cost_what_their_records_do(capsys):
    words = ["--shaping", "off", "strong", "--clients", "2", "--seconds", "2", "--processes", "1", "--json"]
    assert main(words) == 0
    off, strong = json.loads(capsys.readouterr().out)["rows"]
    assert (off["mode"], strong["mode"]) == ("off", "strong")
    # At the pace of a clock of 10 ms: more while it starts, and fewer on a slow machine.
    assert 0 < strong["records_per_second"] < 250
    assert off["spread"] == 0.0 < strong["spread"]
    assert strong["processor_exit"] > off["processor_exit"] > 0
