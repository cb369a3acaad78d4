"""docs/CONTROL.md and the types say the same, and a status is what they say."""

from __future__ import annotations

import json
import re
import types
import typing
from pathlib import Path

import pytest

from halftunnel_vpn.control.status import DnsStatus, LegStatus, ProtectionStatus, RoadStatus, Status

DOCUMENT = Path(__file__).parents[3] / "docs" / "CONTROL.md"


def problems(value, kind, where="status"):
    """What is wrong with ``value`` as a ``kind`` (a TypedDict or what stands in one)."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.NotRequired, typing.Required):
        return problems(value, arguments[0], where)
    if typing.is_typeddict(kind):
        if not isinstance(value, dict):
            return [f"{where}: no object"]
        hints = typing.get_type_hints(kind, include_extras=True)
        needed = {key for key, hint in hints.items() if typing.get_origin(hint) is not typing.NotRequired}
        found = [f"{where}.{key}: missing" for key in needed - value.keys()]
        found += [f"{where}.{key}: not in the schema" for key in value.keys() - hints.keys()]
        for key in value.keys() & hints.keys():
            found += problems(value[key], hints[key], f"{where}.{key}")
        return found
    if origin is list:
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [p for i, item in enumerate(value) for p in problems(item, arguments[0], f"{where}[{i}]")]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{where}: no object"]
        return [p for key, item in value.items() for p in problems(item, arguments[1], f"{where}.{key}")]
    if origin in (types.UnionType, typing.Union):
        return [] if any(not problems(value, member) for member in arguments) else [f"{where}: {value!r}"]
    if kind is float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
    elif kind is int:
        good = type(value) is int
    else:
        good = isinstance(value, kind)
    return [] if good else [f"{where}: {value!r} is no {kind}"]


def example():
    return json.loads(re.search(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[1])


def test_the_documented_example_is_a_status():
    assert problems(example(), Status) == []


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
def test_the_check_finds_what_is_wrong(change, problem):
    assert any(found.startswith(problem) for found in problems(example() | change, Status))


def test_every_key_is_documented():
    text = DOCUMENT.read_text()
    for kind in (Status, RoadStatus, LegStatus, DnsStatus, ProtectionStatus):
        for key in typing.get_type_hints(kind):
            assert f"`{key}`" in text, f"{kind.__name__}.{key}"


async def test_the_small_daemon_tells_a_status(serve_daemon, tmp_path):
    async with serve_daemon() as daemon:
        assert problems(json.loads(json.dumps(daemon.status())), Status) == []
