"""The table of transitions, and the traffic that each state allows."""

from __future__ import annotations

import pytest

from halftunnel_vpn.daemon.events import TunnelEvent
from halftunnel_vpn.daemon.machine import MAX_EVENTS, Machine
from halftunnel_vpn.daemon.states import STATES, Protection
from halftunnel_vpn.errors import IllegalTransition
from halftunnel_vpn.host.firewall import Opening, TrafficPolicy

H = TunnelEvent
TABLE = {
    "disconnected": {H.UP: "connecting", H.DOWN: "disconnected"},
    "connecting": {
        H.UP: "connecting", H.RETRY: "connecting", H.DOWN: "disconnecting", H.ESTABLISHED: "connected",
        H.FAILED: "disconnected", H.BLOCKED: "blocked",
    },
    "connected": {
        H.UP: "connecting", H.DOWN: "disconnecting", H.LOST: "reconnecting",
        H.FAILED: "disconnected", H.BLOCKED: "blocked",
    },
    "reconnecting": {
        H.UP: "connecting", H.DOWN: "disconnecting", H.REGAINED: "connected",
        H.FAILED: "disconnected", H.BLOCKED: "blocked",
    },
    "blocked": {H.UP: "connecting", H.RETRY: "connecting", H.DOWN: "disconnecting"},
    "disconnecting": {H.DOWN: "disconnecting", H.STOPPED: "disconnected", H.FAILED: "disconnected"},
}  # fmt: skip

WANTED = TrafficPolicy(own_ports=(443,))
LOCKED = TrafficPolicy()
PORTAL = (Opening(protocol="tcp", ports=(80,)),)
ALWAYS = Protection(device="tun9", wanted=WANTED, unwanted=LOCKED, portal=PORTAL)


def standing_in(name: str) -> Machine:
    machine = Machine()
    machine.state = STATES[name]
    return machine


@pytest.mark.parametrize("happening", TunnelEvent)
@pytest.mark.parametrize("name", STATES)
def test_each_happening_leads_where_the_table_says_or_nowhere(name: str, happening: TunnelEvent) -> None:
    machine = standing_in(name)
    target = TABLE[name].get(happening)
    assert machine.expects(happening) == (target is not None)
    if target is None:
        with pytest.raises(IllegalTransition, match=f"{name} does not expect {happening.value}"):
            machine.on(happening)
        assert machine.state.name == name
    else:
        assert machine.on(happening) == (target != name)
        assert machine.state.name == target


def test_no_state_lets_more_pass_than_it_names() -> None:
    with_portal = TrafficPolicy(own_ports=(443,), openings=PORTAL)
    with_tunnel = TrafficPolicy(own_ports=(443,), tunnel="tun9")
    assert {name: state.allows(ALWAYS) for name, state in STATES.items()} == {
        "disconnected": LOCKED,
        "connecting": with_portal,
        "connected": with_tunnel,
        "reconnecting": with_tunnel,
        "blocked": with_portal,
        "disconnecting": WANTED,
    }
    on = Protection(device="tun9", wanted=WANTED)
    assert STATES["disconnected"].allows(on) is None and STATES["blocked"].allows(on) == WANTED
    assert all(state.allows(Protection()) is None for state in STATES.values()), "the kill switch is off"


async def test_what_is_noted_is_told_and_stays_until_it_is_mended() -> None:
    machine = standing_in("reconnecting")
    machine.note("A portal.")
    assert machine.sentence == "A portal." and machine.state.name == "reconnecting"
    assert [event["sentence"] for event in await machine.events(0, 0)] == ["A portal."]
    machine.on(H.REGAINED)
    assert machine.sentence is None


async def test_changes_and_failures_are_told_in_order() -> None:
    machine = Machine()
    machine.on(H.DOWN)
    machine.on(H.UP)
    machine.on(H.BLOCKED, "No road.")
    assert machine.sentence == "No road."
    machine.on(H.RETRY)
    assert machine.sentence == "No road.", "it still is what happened last"
    machine.on(H.ESTABLISHED)
    assert machine.sentence is None
    told = await machine.events(0, 0)
    assert [(event["serial"], event["state"], event["sentence"]) for event in told] == [
        (1, "connecting", None),
        (2, "blocked", "No road."),
        (3, "connecting", None),
        (4, "connected", None),
    ]
    assert [event["serial"] for event in await machine.events(3, 0)] == [4]


async def test_the_history_is_bounded() -> None:
    machine = Machine()
    for _ in range(2 * MAX_EVENTS):
        machine.tell("again")
    assert len(await machine.events(0, 0)) == MAX_EVENTS
