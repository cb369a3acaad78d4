"""docs/CONTROL.md and the types say the same, and a status is what they say."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path

import pytest

from halftunnel_vpn.control.status_schema import (
    DirectionStatus,
    DnsStatus,
    ExitOverview,
    LegStatus,
    ProtectionStatus,
    ShapingStatus,
    Status,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "CONTROL.md"


def example():
    return json.loads(re.search(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[1])


def test_the_documented_example_is_a_status(status_problems):
    assert status_problems(example()) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"state": 1}, "status.state"),
        ({"more": 1}, "status.more: not in the schema"),
        ({"lost": [1]}, "status.lost[0]"),
        ({"dropped": {"x": "1"}}, "status.dropped.x"),
        ({"dns": {}}, "status.dns.mode: missing"),
        ({"sentence": 1.5}, "status.sentence"),
    ],
)
def test_the_check_finds_what_is_wrong(status_problems, change, problem):
    assert any(found.startswith(problem) for found in status_problems(example() | change))


def test_every_key_is_documented():
    text = DOCUMENT.read_text()
    for kind in (
        Status,
        ExitOverview,
        DirectionStatus,
        LegStatus,
        DnsStatus,
        ProtectionStatus,
        ShapingStatus,
    ):
        for key in typing.get_type_hints(kind):
            assert f"`{key}`" in text, f"{kind.__name__}.{key}"


async def test_the_small_daemon_tells_a_status(serve_daemon, status_problems):
    async with serve_daemon() as daemon:
        assert status_problems(json.loads(json.dumps(daemon.status()))) == []
