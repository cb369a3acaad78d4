"""The names of metrics: the rules of Prometheus, the table of the documents, the alerts and the board."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from halftunnel_vpn.observe.catalogue import METRICS, PREFIX, Described, MetricKind

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "OPERATE.md"
ALERTS = ROOT / "configs" / "prometheus" / "alerts.yml"
BOARD = ROOT / "configs" / "grafana" / "halftunnel.json"

SUFFIXES_OF_HISTOGRAMS = ("_bucket", "_count", "_sum")


@pytest.mark.parametrize("described", METRICS.values(), ids=METRICS)
def test_a_name_follows_the_rules_of_prometheus(described: Described) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", described.name)
    assert described.name.endswith("_total") == (described.kind is MetricKind.COUNTER)
    assert not re.search(r"(milliseconds|minutes|kilobytes|megabytes|bits)", described.name), "base units"
    assert all(re.fullmatch(r"[a-z]+", label) and label != "le" for label in described.labels)
    assert described.meaning.endswith(".")


def test_the_document_lists_every_metric() -> None:
    listed = re.findall(r"^\| `(halftunnel_\w+)` \| (\w+) \| (\w+) \| (.+?) \|", DOCUMENT.read_text(), re.M)
    assert listed == [
        (
            PREFIX + described.name,
            described.kind.value,
            described.side.value,
            ", ".join(f"`{label}`" for label in described.labels) or "none",
        )
        for described in METRICS.values()
    ]


@pytest.mark.parametrize("file", [ALERTS, BOARD], ids=lambda file: file.name)
def test_alerts_and_board_use_names_that_exist(file: Path) -> None:
    used = set(re.findall(r"\bhalftunnel_\w+", file.read_text()))
    known = {PREFIX + name for name in METRICS}
    known |= {PREFIX + d.name + end for d in METRICS.values() for end in SUFFIXES_OF_HISTOGRAMS}
    assert len(used) >= 6 and used <= known


def test_the_document_names_every_alert_and_the_board_shows_nearly_every_metric() -> None:
    alerts = re.findall(r"^ +- alert: (\w+)$", ALERTS.read_text(), re.M)
    assert re.findall(r"^\| (HalfTunnel\w+) \|", DOCUMENT.read_text(), re.M) == alerts
    text = json.dumps(json.loads(BOARD.read_text())["panels"])
    hidden = [name for name in METRICS if PREFIX + name not in text]
    assert hidden == ["proxy_connections"], "most hosts have no proxy"
