"""What the keeper makes of a policy and a tunnel that come and go, over a kernel in memory."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from halftunnel_vpn.client.host.host_keeper import HostKeeper
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host import Desired, Host, HostState, TrafficPolicy
from halftunnel_vpn.host.kernel.fake import FakeKernel
from halftunnel_vpn.host.kernel.sysctls import SOURCE_MARK

STATE = HostState(addresses=("10.72.84.2/32",), dns=None, intercept_dns=False)
POLICY = TrafficPolicy(own_ports=(443,))
LOCKED = TrafficPolicy()


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    made = FakeKernel(tmp_path / "kernel")
    made.open_device(STATE.tun)
    return made


@pytest.fixture
def keeper(kernel: FakeKernel, tmp_path: Path, counters: Counters) -> HostKeeper:
    host = Host(tmp_path / "state", kernel=kernel)
    return HostKeeper(host, counters, has_device=kernel.has_device)


def never() -> bool:
    raise AssertionError("the device is there")


async def test_a_tunnel_comes_and_goes_while_the_policy_stays(keeper: HostKeeper, kernel: FakeKernel) -> None:
    await keeper.enforce(POLICY)
    await keeper.enter(STATE, never)
    assert keeper.is_verified and keeper.desired == Desired(STATE, POLICY)
    await keeper.enforce(LOCKED)
    assert keeper.tunnel == STATE, "a policy changes under the tunnel"
    await keeper.leave()
    await keeper.leave()
    assert keeper.is_verified and keeper.desired == Desired(None, LOCKED)
    assert all("guard_output" in table for table in kernel.tables)


async def test_a_host_is_clear_after_a_change_that_left_nothing(keeper: HostKeeper) -> None:
    assert not keeper.is_clear, "an earlier process may have left something"
    await keeper.enforce(None)
    assert keeper.is_clear
    await keeper.enforce(POLICY)
    assert not keeper.is_clear
    await keeper.enforce(None)
    await keeper.enter(STATE, never)
    assert not keeper.is_clear
    await keeper.leave()
    assert keeper.is_clear


async def test_what_is_intended_is_applied_by_the_next_check_and_is_nobodys_damage(
    keeper: HostKeeper, kernel: FakeKernel
) -> None:
    await keeper.enforce(POLICY)
    keeper.intend(LOCKED)
    assert not keeper.is_verified
    assert await keeper.mend() == []
    assert keeper.is_verified and await keeper.mend() == []


async def test_a_warning_is_logged_when_it_comes_up_and_not_at_every_apply(
    keeper: HostKeeper, kernel: FakeKernel, caplog: pytest.LogCaptureFixture
) -> None:
    place = kernel.sysctls.root / SOURCE_MARK
    place.unlink()
    place.symlink_to("/proc/sys/kernel/ostype")  # can be read, and not be written: as in a container
    await keeper.enforce(POLICY)
    await keeper.enter(STATE, never)
    for policy in (LOCKED, POLICY):
        await keeper.enforce(policy)
    assert len([text for text in caplog.messages if "src_valid_mark" in text]) == 1
    assert await keeper.mend() == []


async def test_what_failed_is_tried_again(keeper: HostKeeper, kernel: FakeKernel) -> None:
    kernel.refuses = "table"
    with pytest.raises(HostError):
        await keeper.enforce(POLICY)
    assert not keeper.is_verified
    with pytest.raises(HostError):
        await keeper.mend()
    kernel.refuses = ""
    assert await keeper.mend() == []
    assert keeper.is_verified and "guard_output" in (kernel.table() or "")


async def test_a_tunnel_that_cannot_enter_leaves_the_policy(keeper: HostKeeper, kernel: FakeKernel) -> None:
    await keeper.enforce(POLICY)
    kernel.refuses = "table"
    with pytest.raises(HostError):
        await keeper.enter(replace(STATE, include=("198.51.100.0/24",)), never)
    kernel.refuses = ""
    await keeper.leave()
    assert keeper.is_verified and keeper.tunnel is None
    assert kernel.links[STATE.tun].addresses == frozenset()


@pytest.mark.parametrize("works", [True, False])
async def test_a_device_that_somebody_removes_is_opened_again(
    keeper: HostKeeper, kernel: FakeKernel, counters: Counters, works: bool
) -> None:
    def reopen() -> bool:
        if works:
            kernel.open_device(STATE.tun)
        return works

    await keeper.enter(STATE, reopen)
    del kernel.links[STATE.tun]
    assert await keeper.mend() == [f"The device {STATE.tun} is missing."]
    assert counters.counted["device-reopened"] == 1
    if works:
        assert await keeper.mend() == []
        assert kernel.links[STATE.tun].addresses == {"10.72.84.2/32"}
    await keeper.leave()


async def test_after_a_flush_the_same_is_there_again(keeper: HostKeeper, kernel: FakeKernel) -> None:
    await keeper.enforce(POLICY)
    kernel.flush_table()
    assert await keeper.mend() == ["The rules of the kill switch were changed."]
    assert "guard_output" in (kernel.table() or "")


class CountingHost(Host):
    """A host that counts how often it is applied, which waits until it may be."""

    applied = 0
    may_apply = threading.Event()

    def apply(self, desired: Desired) -> list[str]:
        self.applied += 1
        assert self.may_apply.wait(30)
        return super().apply(desired)


async def test_a_check_during_a_change_does_not_repeat_the_change(
    kernel: FakeKernel, tmp_path: Path, counters: Counters
) -> None:
    host = CountingHost(tmp_path / "state", kernel=kernel)
    keeper = HostKeeper(host, counters, has_device=kernel.has_device)
    change = asyncio.ensure_future(keeper.enforce(POLICY))
    await asyncio.sleep(0)
    assert not keeper.is_verified, "the change has begun"
    check = asyncio.ensure_future(keeper.mend())
    await asyncio.sleep(0)
    host.may_apply.set()
    assert await check == []
    await change
    assert keeper.is_verified and host.applied == 1
