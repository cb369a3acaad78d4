"""The supervisor's states act: what each failure and command leads to, and what may leave meanwhile."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from halftunnel_vpn.client import backoff
from halftunnel_vpn.client.exits.exit_ranking import ExitChoice
from halftunnel_vpn.client.settings import lockdown_policy, traffic_policy
from halftunnel_vpn.client.supervisor.portals import OPENINGS
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.errors import ConfigError, HandshakeError, HostError, RoadError, UsageError, first_leaf
from halftunnel_vpn.host import Desired
from halftunnel_vpn.host.kernel.traffic_policy import TrafficPolicy
from halftunnel_vpn.host.record.wanted import Wanted

NO_ROAD = RoadError("nothing listens there", reason="connection-refused")
LASTING = HostError("the device name is taken")
FAILURES = (NO_ROAD, LASTING, HandshakeError("handshake-bad-tag"))
UP_STATES = (TunnelState.CONNECTING, TunnelState.CONNECTED, TunnelState.RECONNECTING)


@pytest.fixture(autouse=True)
def long_pauses(monkeypatch):
    """No second attempt comes by itself during a test."""
    for name in ("FIRST_DELAY", "MAX_DELAY"):
        monkeypatch.setattr(backoff, name, 3600.0)


async def up_to(rig, state):
    """Bring a rig from disconnected to a state in which a tunnel is wanted."""
    await rig.supervisor.up(None)
    if state is TunnelState.BLOCKED:
        rig.tunnels[-1].fail(NO_ROAD)
    elif state is not TunnelState.CONNECTING:
        rig.tunnels[-1].become(TunnelState.CONNECTED)
        if state is TunnelState.RECONNECTING:
            await rig.reach(TunnelState.CONNECTED)
            rig.tunnels[-1].become(state)
    await rig.reach(state)


@pytest.mark.parametrize(
    ("kill_switch", "state"),
    [
        *((switch, state) for switch in ("off", "on", "always") for state in UP_STATES),
        ("on", TunnelState.BLOCKED),
        ("always", TunnelState.BLOCKED),
    ],
)
async def test_down_leads_from_every_state_to_disconnected(make_rig, state, kill_switch):
    rig = await make_rig(kill_switch)
    await up_to(rig, state)
    await rig.supervisor.down()
    await rig.reach(TunnelState.DISCONNECTED)
    assert rig.policy.in_place == lockdown_policy(rig.profile)
    assert rig.supervisor.machine.sentence is None
    status = rig.supervisor.status()
    assert status["profile"] is None and status["protection"]["active"] == (kill_switch == "always")


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("kill_switch", ["on", "always"])
@pytest.mark.parametrize("state", UP_STATES)
async def test_no_failure_under_a_kill_switch_opens_the_host(make_rig, state, kill_switch, failure):
    rig = await make_rig(kill_switch)
    await up_to(rig, state)
    applied = len(rig.policy.history)
    rig.tunnels[-1].fail(failure)
    await rig.reach(TunnelState.BLOCKED)
    assert rig.policy.in_place == traffic_policy(rig.profile)
    assert None not in rig.policy.history[applied - 1 :]
    assert rig.supervisor.machine.sentence


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_without_one_a_first_failure_ends_it_and_says_why(make_rig, failure, tmp_path):
    rig = await make_rig("off")
    await up_to(rig, TunnelState.CONNECTING)
    assert Wanted.load(tmp_path) == Wanted(rig.profile.name, up=True)
    rig.tunnels[-1].fail(failure)
    await rig.reach(TunnelState.DISCONNECTED)
    assert rig.supervisor.machine.sentence
    assert Wanted.load(tmp_path) == Wanted(rig.profile.name, up=False)


async def test_without_one_a_tunnel_that_has_worked_is_tried_again(make_rig):
    rig = await make_rig("off")
    await up_to(rig, TunnelState.RECONNECTING)
    rig.tunnels[-1].fail(NO_ROAD)
    await rig.reach(TunnelState.CONNECTING)
    assert rig.supervisor.machine.sentence == "nothing listens there" and len(rig.tunnels) == 1
    await rig.supervisor.up(None)  # it waits between two attempts
    await rig.settle()
    assert len(rig.tunnels) == 2
    rig.tunnels[-1].become(TunnelState.CONNECTED)
    await rig.reach(TunnelState.CONNECTED)
    rig.tunnels[-1].fail(LASTING)
    await rig.reach(TunnelState.DISCONNECTED)


async def test_the_next_attempt_comes_by_itself(make_rig, monkeypatch):
    for name in ("FIRST_DELAY", "MAX_DELAY"):
        monkeypatch.setattr(backoff, name, 0.001)
    rig = await make_rig()
    await rig.supervisor.up(None)
    async with asyncio.timeout(30):
        for attempt in range(1, 5):
            while len(rig.tunnels) < attempt:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            rig.tunnels[-1].fail(NO_ROAD)
    events = [event["state"] for event in await rig.supervisor.events(0, 0)]
    assert events[:5] == ["connecting", "blocked", "connecting", "blocked", "connecting"]


@pytest.mark.parametrize("command", ["up", "reconnect", "reload"])
async def test_a_command_tries_at_once_what_waits(make_rig, command):
    rig = await make_rig()
    await up_to(rig, TunnelState.BLOCKED)
    if command == "reload":
        rig.profile = replace(rig.profile, routes=replace(rig.profile.routes, mark=77))
    await (rig.supervisor.up(None) if command == "up" else getattr(rig.supervisor, command)())
    assert rig.state is TunnelState.CONNECTING and len(rig.tunnels) == 2
    assert rig.tunnels[-1].profile == rig.profile
    assert rig.policy.in_place == traffic_policy(rig.profile)


async def test_another_profile_waits_for_the_end_of_the_tunnel_before(make_rig):
    rig = await make_rig()
    await up_to(rig, TunnelState.CONNECTED)
    first = rig.tunnels[-1]
    await rig.supervisor.up(None)
    assert rig.state is TunnelState.CONNECTED, "the same one is no error, and changes nothing"
    rig.profile = replace(rig.profile, routes=replace(rig.profile.routes, mark=77))
    await rig.supervisor.up(None)
    await rig.settle()
    assert not first.is_up
    assert rig.state is TunnelState.CONNECTING and [each.profile.routes.mark for each in rig.tunnels][1:] == [
        77
    ]
    first.become(TunnelState.CONNECTED)  # too late
    await rig.settle()
    assert rig.state is TunnelState.CONNECTING


async def test_an_up_that_cannot_protect_changes_nothing(make_rig, tmp_path):
    rig = await make_rig()
    await up_to(rig, TunnelState.CONNECTING)
    await rig.supervisor.down()
    await rig.reach(TunnelState.DISCONNECTED)
    rig.policy.problem = "nft is not installed"
    with pytest.raises(HostError, match="nft is not installed"):
        await rig.supervisor.up(None)
    assert rig.state is TunnelState.DISCONNECTED and not Wanted.load(tmp_path).up
    assert not rig.supervisor.status()["protection"]["active"]
    with pytest.raises(ConfigError, match="has one profile"):
        await rig.supervisor.up("another")


async def test_what_cannot_be_protected_any_more_is_not_tried(make_rig):
    rig = await make_rig()
    await up_to(rig, TunnelState.BLOCKED)
    rig.policy.problem = "nft is gone"
    await rig.supervisor.up(None)
    await rig.settle()
    assert rig.state is TunnelState.BLOCKED and len(rig.tunnels) == 1
    assert rig.supervisor.machine.sentence == "nft is gone"
    rig.policy.problem = None
    await rig.supervisor.up(None)
    assert rig.state is TunnelState.CONNECTING and len(rig.tunnels) == 2


async def test_a_policy_left_by_a_dead_process_stays_until_it_is_lifted(make_rig, tmp_path):
    left = traffic_policy((await make_rig()).profile)
    rig = await make_rig("on", left=left)
    assert rig.policy.in_place == left and None not in rig.policy.history
    await rig.supervisor.down()
    assert rig.policy.in_place is None and rig.state is TunnelState.DISCONNECTED


async def test_what_was_wanted_goes_up_again_and_goes_on(make_rig, tmp_path):
    profile = (await make_rig("off")).profile
    Wanted(profile.name, up=True).save(tmp_path)
    rig = await make_rig("off")
    await rig.settle()
    assert rig.state is TunnelState.CONNECTING and len(rig.tunnels) == 1
    rig.tunnels[-1].fail(NO_ROAD)
    await rig.settle()
    assert rig.state is TunnelState.CONNECTING and rig.supervisor.machine.sentence == "nothing listens there"


@pytest.mark.parametrize("state", [TunnelState.CONNECTING, TunnelState.RECONNECTING, TunnelState.BLOCKED])
async def test_what_a_captive_portal_needs_is_open_until_there_is_a_tunnel(make_rig, state):
    rig = await make_rig()
    await up_to(rig, state)
    await rig.supervisor.portal(60)
    await rig.settle()
    assert rig.policy.in_place.openings == OPENINGS
    await rig.supervisor.up(None)
    await rig.settle()
    rig.tunnels[-1].become(TunnelState.CONNECTED)
    await rig.reach(TunnelState.CONNECTED)
    rig.tunnels[-1].fail(NO_ROAD)
    await rig.reach(TunnelState.BLOCKED)
    assert rig.policy.in_place.openings == ()


async def test_a_portal_is_opened_only_where_a_kill_switch_shuts_it_out(make_rig):
    rig = await make_rig()
    with pytest.raises(HostError, match="a captive portal is not blocked"):
        await rig.supervisor.portal(60)
    await up_to(rig, TunnelState.CONNECTED)
    with pytest.raises(HostError, match="a captive portal is not blocked"):
        await rig.supervisor.portal(60)
    await rig.supervisor.portal(0)


async def test_a_command_whose_caller_is_gone_is_carried_out(make_rig):
    rig = await make_rig()
    await up_to(rig, TunnelState.CONNECTED)
    reached, go_on = asyncio.Event(), asyncio.Event()
    enforce = rig.policy.enforce

    async def slowly(policy):
        reached.set()
        await go_on.wait()
        await enforce(policy)

    rig.policy.enforce = slowly
    rig.profile = replace(rig.profile, routes=replace(rig.profile.routes, mark=77))
    asking = asyncio.create_task(rig.supervisor.up(None))
    await reached.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    go_on.set()
    rig.policy.enforce = enforce
    await rig.settle()
    assert rig.supervisor.status()["profile"] == rig.profile.name and rig.state is TunnelState.CONNECTING


async def test_an_up_after_a_down_waits_until_that_is_carried_out(make_rig):
    rig = await make_rig()
    await up_to(rig, TunnelState.CONNECTED)
    await asyncio.gather(rig.supervisor.down(), rig.supervisor.up(None))
    assert rig.state is TunnelState.CONNECTING and len(rig.tunnels) == 2


async def test_the_end_keeps_the_kill_switch_and_refuses_what_comes_too_late(make_rig):
    rig = await make_rig()
    await up_to(rig, TunnelState.CONNECTED)
    rig.supervisor.stop()
    await rig.task
    left = Desired(None, rig.policy.in_place).policy  # as the host has it once the tunnel has gone
    assert left == traffic_policy(rig.profile)
    with pytest.raises(HostError, match="is ending"):
        await rig.supervisor.reconnect()


async def test_a_down_before_the_end_is_carried_out(make_rig, tmp_path):
    rig = await make_rig()
    await up_to(rig, TunnelState.CONNECTED)
    await rig.supervisor.down()
    rig.supervisor.stop()
    await rig.task
    assert rig.state is TunnelState.DISCONNECTED and rig.policy.in_place is None


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_comes_in_whatever_order_the_host_is_shut_while_a_tunnel_is_wanted(make_rig, seed):
    chance = random.Random(seed)
    rig = await make_rig("on")

    async def command():
        name = chance.choice(["up", "down", "reconnect", "portal", "reload", "repair", "other"])
        try:
            match name:
                case "up":
                    await rig.supervisor.up(None)
                case "other":
                    rig.profile = replace(
                        rig.profile, routes=replace(rig.profile.routes, mark=chance.randrange(1, 99))
                    )
                case "portal":
                    await rig.supervisor.portal(chance.choice([0, 60]))
                case "repair":
                    await rig.supervisor.repair(lift=chance.random() < 0.2)
                case _:
                    await getattr(rig.supervisor, name)()
        except HostError:
            pass  # a refusal: what was is what is

    for _ in range(150):
        tunnel = rig.tunnels[-1] if rig.tunnels else None
        if tunnel is not None and chance.random() < 0.5:
            if chance.random() < 0.3:
                tunnel.fail(chance.choice(FAILURES))
            else:
                tunnel.become(chance.choice([TunnelState.CONNECTED, TunnelState.RECONNECTING]))
        else:
            await command()
        if chance.random() < 0.7:
            await rig.settle()
        if rig.state not in (TunnelState.DISCONNECTED, TunnelState.DISCONNECTING):
            assert rig.policy.in_place is not None
        assert sum(each.is_up for each in rig.tunnels) <= 1
        assert not rig.task.done()
    await rig.supervisor.down()
    await rig.reach(TunnelState.DISCONNECTED)
    await rig.settle()
    assert rig.policy.in_place is None
    told = [event["state"] for event in await rig.supervisor.events(0, 0)]
    assert told[-1] == "disconnected"


@pytest.fixture
async def two_exits(make_rig):
    """A rig that is connected, and whose profile has two exits."""
    rig = await make_rig()
    rig.supervisor.status()
    second = replace(rig.profile.exits[0], name="second")
    rig.profile = replace(rig.profile, exits=(*rig.profile.exits, second))
    await up_to(rig, TunnelState.CONNECTING)  # with the profile as it was first read
    await rig.supervisor.down()
    await rig.reach(TunnelState.DISCONNECTED)
    await up_to(rig, TunnelState.CONNECTED)
    return rig


async def asked(rig):
    """Wait until the running tunnel is asked for another exit."""
    async with asyncio.timeout(30):
        while rig.tunnels[-1].outcome is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_another_exit_is_a_matter_of_the_running_tunnel(two_exits, tmp_path):
    rig, tunnels = two_exits, len(two_exits.tunnels)
    applied = len(rig.policy.history)
    switching = asyncio.ensure_future(rig.supervisor.switch(exit="second"))
    await asked(rig)
    assert rig.tunnels[-1].choices == [ExitChoice("second")]
    assert not switching.done()
    rig.tunnels[-1].outcome.set_result("second")
    await switching
    assert (rig.state, len(rig.tunnels)) == (TunnelState.CONNECTED, tunnels)
    assert set(rig.policy.history[applied:]) <= {traffic_policy(rig.profile)}
    assert Wanted.load(tmp_path) == Wanted("example", up=True, exit="second")
    await rig.supervisor.up(None, exit="second")  # that is what is in use
    assert len(rig.tunnels[-1].choices) == 1


async def test_an_exit_that_is_not_reached_is_no_longer_wanted(two_exits, tmp_path):
    rig = two_exits
    switching = asyncio.ensure_future(rig.supervisor.up(None, exit="second"))
    await asked(rig)
    rig.tunnels[-1].outcome.set_exception(HostError("the exit second cannot be reached"))
    with pytest.raises(HostError, match="second cannot be reached"):
        await switching
    await rig.settle()
    assert rig.supervisor.machine.state.target.choice == ExitChoice()
    assert Wanted.load(tmp_path) == Wanted("example", up=True)


async def test_what_no_exit_is_has_its_sentence(two_exits):
    rig = two_exits
    with pytest.raises(ConfigError, match="has no exit third; it has example, second"):
        await rig.supervisor.switch(exit="third")
    with pytest.raises(UsageError, match="not both"):
        await rig.supervisor.up(None, exit="second", fastest=True)
    assert rig.tunnels[-1].choices == []
    await rig.supervisor.down()
    await rig.reach(TunnelState.DISCONNECTED)
    with pytest.raises(HostError, match="nothing is up"):
        await rig.supervisor.switch(exit="second")


async def test_a_choice_while_blocked_is_tried_at_once(two_exits):
    rig = two_exits
    rig.tunnels[-1].fail(NO_ROAD)
    await rig.reach(TunnelState.BLOCKED)
    tunnels = len(rig.tunnels)
    await rig.supervisor.switch(exit="second")
    assert rig.state is TunnelState.CONNECTING and len(rig.tunnels) == tunnels + 1
    assert rig.targets[-1].choice == ExitChoice("second")


async def test_the_choice_outlives_a_restart(two_exits, make_rig):
    rig = two_exits
    switching = asyncio.ensure_future(rig.supervisor.switch(fastest=True))
    await asked(rig)
    rig.tunnels[-1].outcome.set_result("second")
    await switching
    rig.supervisor.stop()
    await rig.task
    again = await make_rig()
    await again.settle()
    assert again.targets[-1].choice == ExitChoice(fastest=True)


async def test_a_start_without_a_policy_asks_the_kernel_once_whether_anything_is_left(make_rig):
    rig = await make_rig("off")
    assert rig.policy.history == [], "nothing is recorded, so it is asked beside everything else"
    await rig.supervisor.up(None)
    await rig.reach(TunnelState.CONNECTING)
    assert rig.policy.history == [None]
    await rig.supervisor.down()
    await rig.reach(TunnelState.DISCONNECTED)
    applied = len(rig.policy.history)
    await rig.supervisor.down()
    assert rig.policy.history[applied:] == [None], "a down lifts whatever is left, each time"


async def test_a_start_removes_what_is_recorded_before_anything_else(make_rig):
    rig = await make_rig("off", left=TrafficPolicy())
    assert rig.policy.history == [TrafficPolicy()], "the policy that was left holds until a command"


async def test_a_host_that_cannot_be_checked_ends_the_client(make_rig):
    rig = await make_rig("off")
    rig.policy.problem = "nft did not end within 30 s"
    with pytest.raises(ExceptionGroup) as caught:
        await rig.task
    rig.task = asyncio.ensure_future(asyncio.sleep(0))  # the fixture expects one that has not failed
    assert str(first_leaf(caught.value)) == rig.policy.problem
