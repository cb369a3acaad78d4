"""What `htvpn top` computes: rates from snapshots, programs from flows, bars."""

from __future__ import annotations

import pytest

from halftunnel_vpn.cli.top.rates import MAX_HISTORY, UNKNOWN, FlowRates, Speed, StatusRates, sparkline


def status(up: int, down: int, *, pid: int = 1, session: int = 1, number: int = 0) -> dict[str, object]:
    def road(sent: int, received: int) -> dict[str, object]:
        leg = {"number": number, "domain": "a", "sent_bytes": sent, "received_bytes": received}
        return {"sent_bytes": sent, "received_bytes": received, "open_legs": [leg]}

    return {"pid": pid, "session": session, "upstream": road(up, 10), "downstream": road(20, down)}


def test_rates_are_differences_by_time():
    rates = StatusRates()
    rates.add(status(1000, 5000), 10.0)
    assert rates.total == Speed(0, 0) and not rates.legs
    rates.add(status(3000, 9000), 12.0)
    assert rates.total == Speed(1000, 2000)
    assert rates.legs == {("upstream", 0): Speed(1000, 0), ("downstream", 0): Speed(0, 2000)}


@pytest.mark.parametrize("later", [status(10, 10, pid=2), status(10, 10, session=2), {"state": "connecting"}])
def test_counters_that_begin_again_give_no_rate(later):
    rates = StatusRates()
    rates.add(status(1000, 5000), 10.0)
    rates.add(later, 11.0)
    assert rates.total == Speed(0, 0)


def test_a_new_leg_counts_from_its_begin():
    rates = StatusRates()
    rates.add(status(1000, 5000), 10.0)
    rates.add(status(1500, 5000, number=7), 11.0)
    assert rates.legs["upstream", 7] == Speed(1500, 10) and rates.total == Speed(500, 0)


def test_after_a_pause_nothing_is_compared_and_the_history_is_bounded():
    rates = StatusRates()
    for second in range(MAX_HISTORY + 50):
        rates.add(status(second, second), float(second))
    assert len(rates.history) == MAX_HISTORY
    rates.forget()
    rates.add(status(10**9, 10**9), 1000.0)
    assert rates.total == Speed(1, 1) and not rates.legs


def flow(program: str | None, port: int, sent: int | None, received: int | None, kind: str = "tcp") -> dict:
    pid = None if program is None else len(program)
    return {
        "kind": kind, "port": port, "program": program, "pid": pid, "user": 0,
        "destination": f"192.0.2.1:{port % 2}" if kind == "tcp" else None,
        "sent_bytes": sent, "received_bytes": received,
    }  # fmt: skip


def test_flows_are_grouped_by_program_with_rates():
    rates = FlowRates()
    rates.add({"flows": [flow("curl", 1, 100, 1000), flow("curl", 3, 0, 0)], "left_out": 0}, 5.0)
    assert rates.programs[0].speed == Speed(0, 0), "there is no earlier list"
    later = [
        flow("curl", 1, 300, 5000),
        flow("curl", 4, 200, 0),  # new: all its bytes are of this interval
        flow("curl", 9, None, None, "udp"),
        flow(None, 5, None, None, "icmp"),
    ]
    rates.add({"flows": later, "left_out": 7}, 7.0)
    curl, unknown = rates.in_order("rate")
    assert (curl.name, curl.pid, curl.tcp, curl.udp, curl.icmp, curl.flows) == ("curl", 4, 2, 1, 0, 3)
    assert curl.speed == Speed(200, 2000) and curl.destinations == ("192.0.2.1:1", "192.0.2.1:0")
    assert (unknown.name, unknown.pid, unknown.icmp) == (UNKNOWN, None, 1) and rates.left_out == 7


def test_programs_are_sorted():
    rates = FlowRates()
    flows = [flow("b", 1, 0, 0), flow("aaa", 2, 0, 0), flow("aaa", 3, 0, 0), flow("cc", 4, 0, 0)]
    rates.add({"flows": flows}, 1.0)
    flows[0] = flow("b", 1, 0, 500)
    rates.add({"flows": flows}, 2.0)
    names = {order: [each.name for each in rates.in_order(order)] for order in ("rate", "flows", "name")}
    assert names == {"rate": ["b", "aaa", "cc"], "flows": ["aaa", "b", "cc"], "name": ["aaa", "b", "cc"]}


@pytest.mark.parametrize(
    ("values", "width", "bars"),
    [([], 5, ""), ([0, 0], 5, "▁▁"), ([0, 1, 2, 4], 5, "▁▃▅█"), ([9, 1, 2], 2, "▅█"), ([1], 0, "")],
)
def test_bars(values, width, bars):
    assert sparkline(values, width) == bars
