"""The entry of `htvpn up --foreground`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from halftunnel_vpn import __version__
from halftunnel_vpn.client.companions import Companions, MakeProxy
from halftunnel_vpn.client.exits.exit_ranking import BY_PRIORITY, ExitChoice
from halftunnel_vpn.client.supervisor.client_metrics import add_metrics, problems
from halftunnel_vpn.client.supervisor.profile_source import OneProfile
from halftunnel_vpn.client.supervisor.supervisor import Supervisor
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.net import Endpoint
from halftunnel_vpn.control.control_service import ControlService
from halftunnel_vpn.control.daemon_routes import supervisor_routes
from halftunnel_vpn.control.observation_routes import observation_routes
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.errors import HostError, first_leaf
from halftunnel_vpn.host.preflight import preflight_host
from halftunnel_vpn.host.record.journal import state_directory
from halftunnel_vpn.host.record.lock import HostLock, Role
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.observe.telemetry import Telemetry
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import FaultHandler
from halftunnel_vpn.transport.loop import run

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that end the client cleanly: Ctrl-C, a service manager, a closed terminal, Ctrl-\\."""

_MAY_BE_IGNORED = (signal.SIGHUP, signal.SIGQUIT)
"""Signals that stay ignored if the caller ignores them, as nohup(1) does."""


def run_client(
    profile: ClientProfile,
    read: Callable[[], ClientProfile],
    *,
    metrics: Endpoint | None,
    make_proxy: MakeProxy,
    choice: ExitChoice = BY_PRIORITY,
) -> int:
    """Run the client until a signal of ``STOP_SIGNALS`` or `htvpn down`; return the exit code 0.

    ``read`` reads the profile again; ``make_proxy`` makes the proxy that it asks for; ``choice`` says which
    of its exits may be used. Raises HostError, one sentence, when the tunnel does not come up and no kill
    switch holds, when it cannot go on, or when another process manages this host.
    """
    with HostLock(state_directory(), Role.FOREGROUND, socket=profile.control.socket):
        run(_main(profile, read, metrics, make_proxy, choice), nice=profile.limits.nice)
    return 0


async def _main(
    profile: ClientProfile,
    read: Callable[[], ClientProfile],
    metrics: Endpoint | None,
    make_proxy: MakeProxy,
    choice: ExitChoice,
) -> None:
    driver = Driver(asyncio.get_running_loop())
    numbers = Metrics(__version__)
    telemetry = Telemetry("halftunnel-client", __version__, numbers, driver.wheel)
    supervisor = Supervisor(
        driver,
        OneProfile(profile, read),
        state_directory(),
        remembers=False,
        companions=Companions(make_proxy, telemetry),
    )
    FaultHandler(driver.loop, supervisor.counters)
    add_metrics(numbers, "client", supervisor)
    control = ControlService(supervisor_routes(supervisor))
    observation = ControlService(observation_routes(numbers.render, lambda: problems(supervisor)))
    told_to_end = asyncio.Event()
    for number in STOP_SIGNALS:
        if number not in _MAY_BE_IGNORED or signal.getsignal(number) is not signal.SIG_IGN:
            driver.loop.add_signal_handler(number, told_to_end.set)
    try:
        preflight_host()
        await control.serve_unix(profile.control.socket)
        if metrics is not None:
            await observation.serve_tcp(str(metrics.host), metrics.port)
        await supervisor.begin()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(supervisor.run())
            ender = tasks.create_task(_down_when(told_to_end, supervisor))
            await supervisor.up(None, exit=choice.name, fastest=choice.fastest)
            await supervisor.machine.until(TunnelState.DISCONNECTED)
            ender.cancel()
            supervisor.stop()
        if supervisor.machine.sentence is not None:
            raise HostError(supervisor.machine.sentence)
    except BaseExceptionGroup as group:
        raise first_leaf(group) from None
    finally:
        await observation.close()
        await control.close()
        driver.close()


async def _down_when(told_to_end: asyncio.Event, supervisor: Supervisor) -> None:
    """Disconnect on the first signal. A signal before the first dial also prevents that."""
    await told_to_end.wait()
    await supervisor.machine.while_in(TunnelState.DISCONNECTED)
    await supervisor.down()
