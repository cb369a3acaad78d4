"""The wanted state as data: what may be asked, and its way through JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from halftunnel_vpn.host import HostState
from halftunnel_vpn.host.host_state import MAX_RULE_PRIORITY

STATE = HostState(
    addresses=("10.72.84.2/32", "fd72:84::2/128"),
    exclude=("192.0.2.0/24",),
    dns=("10.72.84.1", "fd72:84::1"),
)


@pytest.mark.parametrize(
    "state", [STATE, replace(STATE, dns=None, ipv6=False, include=(), intercept_dns=False)]
)
def test_it_survives_json(state: HostState) -> None:
    assert HostState.from_dict(json.loads(json.dumps(state.as_dict()))) == state


def test_the_defaults_route_everything() -> None:
    assert [str(network) for network in STATE.included(4)] == ["0.0.0.0/0"]
    assert [str(network) for network in STATE.included(6)] == ["::/0"]
    assert [str(network) for network in STATE.excluded(4)] == ["192.0.2.0/24"]
    assert STATE.excluded(6) == []


def test_without_ipv6_at_the_exit_the_device_has_no_address_of_it() -> None:
    assert [str(item) for item in STATE.interfaces()] == ["10.72.84.2/32", "fd72:84::2/128"]
    assert [str(item) for item in replace(STATE, ipv6=False).interfaces()] == ["10.72.84.2/32"]


def test_a_network_that_is_named_twice_counts_once() -> None:
    twice = replace(STATE, include=("192.0.2.0/24", "192.0.2.0/24"))
    assert len(twice.included(4)) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"addresses": ("10.72.84.2/33",)},
        {"include": ("192.0.2.1/24",)},
        {"exclude": ("everything",)},
        {"dns": ("dns.example",)},
        {"rule_priority": 0},
        {"rule_priority": MAX_RULE_PRIORITY + 1},
    ],
)
def test_what_cannot_be_read_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(STATE, **wrong)
