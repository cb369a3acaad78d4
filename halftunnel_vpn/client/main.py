"""Entry of `htvpn up --foreground`."""

from __future__ import annotations

import asyncio
import signal

from halftunnel_vpn import __version__
from halftunnel_vpn.client.connector import explain
from halftunnel_vpn.client.protection import protected
from halftunnel_vpn.client.tunnel import Tunnel
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.net import Endpoint
from halftunnel_vpn.control.observation_routes import observation_routes, tunnel_routes
from halftunnel_vpn.control.service import ControlService
from halftunnel_vpn.errors import HandshakeError, HostError, first_leaf
from halftunnel_vpn.host.journal import state_directory
from halftunnel_vpn.host.record.lock import HostLock, Role
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import FaultHandler
from halftunnel_vpn.transport.loop import run

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""End the client cleanly: Ctrl-C, a service manager, a terminal that closes, Ctrl-\\."""

_MAY_BE_IGNORED = (signal.SIGHUP, signal.SIGQUIT)
"""Stay ignored where the caller ignores them, as nohup(1) does."""


def run_client(profile: ClientProfile, *, metrics: Endpoint | None) -> int:
    """Run the client until a signal of ``STOP_SIGNALS`` or `htvpn down`; return the exit code 0.

    Raises HostError or RoadError, each one sentence, when the tunnel does not come up, the device vanishes or
    another process manages this host.
    """
    try:
        with HostLock(state_directory(), Role.FOREGROUND, socket=profile.control.socket):
            run(_main(profile, metrics), nice=profile.limits.nice)
    except HandshakeError as error:
        raise HostError(explain(error)) from error
    return 0


async def _main(profile: ClientProfile, metrics: Endpoint | None) -> None:
    driver = Driver(asyncio.get_running_loop())
    tunnel = Tunnel(profile, driver)
    FaultHandler(driver.loop, tunnel.counters)
    numbers = Metrics(__version__)
    numbers.add_counters("client", tunnel.counters)
    numbers.add_labelled_gauge("flows", "Flows that are open, by kind.", "kind", tunnel.flow_counts)
    control = ControlService(tunnel_routes(tunnel.status, tunnel.stop, tunnel.adopt_program))
    observation = ControlService(observation_routes(numbers.render, lambda: tunnel.is_ready))
    for number in STOP_SIGNALS:
        if number not in _MAY_BE_IGNORED or signal.getsignal(number) is not signal.SIG_IGN:
            driver.loop.add_signal_handler(number, tunnel.stop)
    try:
        await control.serve_unix(profile.control.socket)
        if metrics is not None:
            await observation.serve_tcp(str(metrics.host), metrics.port)
        async with protected(profile, state_directory()):
            await tunnel.run()
    except BaseExceptionGroup as group:
        raise first_leaf(group) from None
    finally:
        await observation.close()
        await control.close()
        driver.close()
