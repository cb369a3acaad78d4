"""The table of transitions as a whole, and the history that listeners read."""

from __future__ import annotations

import itertools

import pytest

from halftunnel_vpn.client.supervisor.base_state import State, Step
from halftunnel_vpn.client.supervisor.events import TunnelEvent
from halftunnel_vpn.client.supervisor.machine import MAX_EVENTS, Machine
from halftunnel_vpn.client.supervisor.state_policies import StatePolicies
from halftunnel_vpn.client.supervisor.states import (
    START,
    STATES,
    Blocked,
    Connected,
    Connecting,
    Disconnected,
    Disconnecting,
    Reconnecting,
)
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.errors import IllegalTransition
from halftunnel_vpn.host.kernel.traffic_policy import Opening, TrafficPolicy

INSTANCES: dict[TunnelState, State] = {
    state.name: state
    for state in (
        Disconnected(),
        Connecting(None),
        Connected(None),
        Reconnecting(None),
        Blocked(None, goes_on=True, after=None),
        Disconnecting(),
    )
}
WANTED = TrafficPolicy(own_ports=(443,))
LOCKED = TrafficPolicy()
PORTAL = (Opening(protocol="tcp", ports=(80,)),)
ALWAYS = StatePolicies(wanted=WANTED, unwanted=LOCKED, portal=PORTAL)
ON = StatePolicies(wanted=WANTED)


def reachable(start: TunnelState) -> set[TunnelState]:
    """Every state that the table leads to from one."""
    found, open_ends = {start}, [start]
    while open_ends:
        for target in STATES[open_ends.pop()].leads_to.values():
            if target not in found:
                found.add(target)
                open_ends.append(target)
    return found


def test_every_state_can_be_reached_and_reaches_disconnected():
    assert set(STATES) == set(TunnelState) == reachable(START)
    assert all(START in reachable(name) for name in TunnelState)


def test_down_leads_out_of_every_state_without_a_detour():
    for name, state in STATES.items():
        after_down = state.leads_to[TunnelEvent.DOWN]
        assert after_down in (TunnelState.DISCONNECTING, TunnelState.DISCONNECTED), name
    assert set(STATES[TunnelState.DISCONNECTING].leads_to.values()) == {
        TunnelState.DISCONNECTING,
        TunnelState.DISCONNECTED,
    }


def test_only_a_wish_leads_from_a_kill_switch_to_an_open_state():
    open_states = {name for name, state in STATES.items() if state.allows(ON) is None}
    assert open_states == {TunnelState.DISCONNECTED}
    leading_there = {
        (name, event)
        for name, state in STATES.items()
        for event, target in state.leads_to.items()
        if target in open_states and name not in open_states
    }
    # FAILED is only taken where no kill switch holds: see test_supervisor.
    assert {event for _, event in leading_there} == {TunnelEvent.STOPPED, TunnelEvent.FAILED}
    assert {name for name, event in leading_there if event is TunnelEvent.STOPPED} == {
        TunnelState.DISCONNECTING
    }


def test_what_the_table_does_not_list_raises_and_changes_nothing():
    refused = 0
    for before, event, after in itertools.product(INSTANCES, TunnelEvent, INSTANCES):
        machine = Machine()
        machine.state = INSTANCES[before]
        step = Step(event, INSTANCES[after], "Something.")
        if STATES[before].leads_to.get(event) is after:
            machine.go(step)
            assert machine.state is INSTANCES[after]
            continue
        refused += 1
        with pytest.raises(IllegalTransition, match=f"{before} does not expect {event.value}"):
            machine.go(step)
        assert machine.state is INSTANCES[before] and machine.sentence is None
    assert refused > len(INSTANCES) * len(TunnelEvent)


def test_no_state_lets_more_pass_than_a_running_tunnel_needs():
    for state in STATES.values():
        policy = state.allows(ALWAYS)
        assert policy is not None
        assert not policy.tunnel, "the host adds the device of a tunnel"
        assert not policy.openings or state.name in (TunnelState.CONNECTING, TunnelState.BLOCKED)
        assert state.allows(StatePolicies()) is None, "the kill switch is off"
    assert STATES[TunnelState.DISCONNECTED].allows(ALWAYS) == LOCKED


async def test_what_is_noted_is_told_and_stays_until_it_is_mended():
    machine = Machine()
    machine.state = INSTANCES[TunnelState.RECONNECTING]
    machine.note("A portal.")
    assert machine.sentence == "A portal." and machine.state.name is TunnelState.RECONNECTING
    assert [event["sentence"] for event in await machine.events(0, 0)] == ["A portal."]
    machine.go(Step(TunnelEvent.REGAINED, Connected(None)))
    assert machine.sentence is None


async def test_changes_and_failures_are_told_in_order():
    machine = Machine()
    machine.go(Step(TunnelEvent.DOWN, Disconnected()))
    machine.go(Step(TunnelEvent.UP, Connecting(None)))
    machine.go(Step(TunnelEvent.BLOCKED, Blocked(None, goes_on=True, after=None), "No road."))
    machine.go(Step(TunnelEvent.RETRY, Connecting(None)))
    assert machine.sentence == "No road.", "it still is what happened last"
    machine.go(Step(TunnelEvent.ESTABLISHED, Connected(None)))
    assert machine.sentence is None
    told = await machine.events(0, 0)
    assert [(event["serial"], event["state"], event["sentence"]) for event in told] == [
        (1, "connecting", None),
        (2, "blocked", "No road."),
        (3, "connecting", None),
        (4, "connected", None),
    ]
    assert [event["serial"] for event in await machine.events(3, 0)] == [4]


async def test_the_history_is_bounded():
    machine = Machine()
    for _ in range(2 * MAX_EVENTS):
        machine.report("again")
    assert len(await machine.events(0, 0)) == MAX_EVENTS
