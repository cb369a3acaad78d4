"""The instrument of `scripts/audit` on a real tunnel: it sees both paths, and that tells pages apart."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from lab.audit import nearest
from lab.audit.shard import Plan, Shard
from lab.audit.sites import make_site
from lab.audit.traces import Trace, read_all

from halftunnel_vpn.cli.main import main

pytestmark = pytest.mark.root

SITES, LOADS = 3, 4


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    """What a small run has left behind."""
    plan = Plan(
        tmp_path_factory.mktemp("audit"),
        sites=SITES, loads=LOADS, seed=5, delay=0.02, silence=0.25, keep_captures=True,
    )  # fmt: skip
    Shard(plan, 0, 1).run()
    yield plan


@pytest.fixture(scope="module")
def traces(plan: Plan) -> list[Trace]:
    return read_all(plan.directory, plan.name)


def test_every_load_was_captured_on_both_paths(plan: Plan, traces: list[Trace]) -> None:
    assert [(trace.load, trace.site) for trace in traces] == [
        (a, b) for a in range(LOADS) for b in range(SITES)
    ]
    for trace in traces:
        assert trace.quiet
        assert trace.legs == ["A0", "B0"]
        up = sum(size for _, size, leg in trace.packets if size > 0 and leg == 0)
        down = -sum(size for _, size, leg in trace.packets if size < 0 and leg == 1)
        variants = 40_000
        assert trace.bytes == pytest.approx(make_site(plan.seed, trace.site).bytes(), abs=variants)
        assert trace.bytes < down < 1.2 * trace.bytes
        assert 2_000 < up < 0.2 * down


def test_what_was_captured_tells_the_pages_apart(traces: list[Trace]) -> None:
    # Chance is a third. A busy machine acknowledges at other times, which blurs what goes up.
    assert nearest.recognised(traces) > 0.5


def test_an_interrupted_run_loads_only_what_is_missing(plan: Plan) -> None:
    assert Shard(plan, 0, 1).todo == []
    longer = Plan(plan.directory, sites=SITES, loads=LOADS + 1, seed=plan.seed)
    assert sorted(Shard(longer, 0, 1).todo) == [(site, LOADS) for site in range(SITES)]


def test_the_command_scores_the_captures_of_both_paths(
    plan: Plan, traces: list[Trace], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(plan.directory / f"{plan.name}.shard0.road-{letter}.pcap") for letter in "ab"]
    assert main(["audit", *files, "--exit", "10.77.1.1", "10.77.2.1", "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["whole_records"]
    a, b, both = verdict["paths"]
    assert b["bytes_down"] > sum(trace.bytes for trace in traces)
    assert a["bytes_up"] > 20 * a["bytes_down"]
    assert both["four_bursts"] > a["four_bursts"] + b["four_bursts"]
    assert verdict["echo"] > 0.3
    assert min(a["size_entropy"], b["size_entropy"]) > 1
    # what leaves in an unshaped tunnel is no clock
    assert main(["audit", *files, "--mode", "split"]) == 1
    assert "have another size than the clock's" in capsys.readouterr().out
