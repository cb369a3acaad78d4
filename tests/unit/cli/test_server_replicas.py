"""Which of several exits a client uses."""

from __future__ import annotations

from pathlib import Path

from halftunnel_vpn.cli.server_replicas import by_preference

CLIENTS = [f"client-{number}" for number in range(1000)]


def keys(number: int) -> dict[Path, bytes]:
    return {Path(f"exit{serial}"): bytes([serial]) * 32 for serial in range(number)}


def test_clients_spread_evenly():
    homes = [by_preference(name, keys(4))[0] for name in CLIENTS]
    counts = [homes.count(directory) for directory in keys(4)]
    assert min(counts) > 200 and max(counts) < 300


def test_a_client_stays_in_whichever_order_the_exits_are_named():
    for name in CLIENTS[:50]:
        assert by_preference(name, keys(4)) == by_preference(name, dict(reversed(keys(4).items())))


def test_a_further_exit_takes_over_its_own_clients_alone():
    before = {name: by_preference(name, keys(4))[0] for name in CLIENTS}
    after = {name: by_preference(name, keys(5))[0] for name in CLIENTS}
    moved = [name for name in CLIENTS if before[name] != after[name]]
    assert 100 < len(moved) < 300
    assert {after[name] for name in moved} == {Path("exit4")}
