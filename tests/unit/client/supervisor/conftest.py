"""A supervisor without root: its tunnels are fakes, and its policies stay in memory."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from halftunnel_vpn.client.supervisor.events import Target
from halftunnel_vpn.client.supervisor.policy_port import FakePolicy
from halftunnel_vpn.client.supervisor.profile_source import OneProfile
from halftunnel_vpn.client.supervisor.supervisor import Supervisor
from halftunnel_vpn.client.supervisor.tunnel_port import FakeTunnel
from halftunnel_vpn.config.client import ClientProfile, parse_client
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.host.kernel.traffic_policy import TrafficPolicy
from halftunnel_vpn.transport.driver import Driver

EXAMPLE = Path(__file__).parents[4] / "configs" / "client.toml"


def profile_with(kill_switch: str) -> ClientProfile:
    """The example profile with this kill switch; nobody is asked for captive portals."""
    profile = parse_client(EXAMPLE.read_text(), source="client.toml")
    protection = dataclasses.replace(profile.protection, kill_switch=kill_switch, portal_probe=False)
    return dataclasses.replace(profile, protection=protection)


class Rig:
    """A supervisor that runs, and what is at its edges."""

    def __init__(self, state_dir: Path, kill_switch: str, left: TrafficPolicy | None) -> None:
        self.profile = profile_with(kill_switch)
        self.policy = FakePolicy(left)
        self.tunnels: list[FakeTunnel] = []
        self.targets: list[Target] = []
        self.driver = Driver(asyncio.get_running_loop())
        self.supervisor = Supervisor(
            self.driver,
            OneProfile(self.profile, lambda: self.profile),
            state_dir,
            remembers=True,
            policy=self.policy,
            make_tunnel=self._make,
        )
        self.task: asyncio.Task[None] | None = None

    def _make(self, target: Target, changed: Callable[[], None]) -> FakeTunnel:
        self.targets.append(target)
        self.tunnels.append(FakeTunnel(target.profile, changed))
        return self.tunnels[-1]

    @property
    def state(self) -> TunnelState:
        return self.supervisor.machine.state.name

    async def start(self) -> None:
        await self.supervisor.begin()
        self.task = asyncio.create_task(self.supervisor.run())

    async def reach(self, state: TunnelState) -> None:
        """Wait until the state is this one."""
        async with asyncio.timeout(30):
            await self.supervisor.machine.until(state)

    async def settle(self) -> None:
        """Let everything happen that waits for nothing but its turn."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def close(self) -> None:
        self.supervisor.stop()
        assert self.task is not None
        async with asyncio.timeout(30):
            await self.task
        self.driver.close()


@pytest.fixture
async def make_rig(tmp_path):
    """Make running rigs; they end with the test, and none of their tasks has failed."""
    made = []

    async def make(kill_switch: str = "on", *, left: TrafficPolicy | None = None) -> Rig:
        rig = Rig(tmp_path, kill_switch, left)
        await rig.start()
        made.append(rig)
        return rig

    yield make
    for rig in made:
        await rig.close()
