"""The daemon's process: arguments, log, control socket, signals, and reports to systemd."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from halftunnel_vpn import __build__, __version__
from halftunnel_vpn.client.companions import Companions
from halftunnel_vpn.client.supervisor.client_metrics import add_metrics, problems
from halftunnel_vpn.client.supervisor.machine import sentence_of
from halftunnel_vpn.client.supervisor.supervisor import Supervisor
from halftunnel_vpn.config import DEFAULT_CONTROL_SOCKET, net
from halftunnel_vpn.config.schema import Rejected
from halftunnel_vpn.control.control_service import ControlService
from halftunnel_vpn.control.daemon_routes import MAX_PROFILE, LogLine, daemon_routes
from halftunnel_vpn.control.observation_routes import observation_routes
from halftunnel_vpn.control.peer import group_id
from halftunnel_vpn.control.profile_store import PROFILES, ProfileStore
from halftunnel_vpn.control.ring import MAX_WAIT
from halftunnel_vpn.daemon import systemd
from halftunnel_vpn.daemon.log_ring import LogRing
from halftunnel_vpn.daemon.profile_metrics import ProfileMetrics
from halftunnel_vpn.errors import HalfTunnelError, HostError, first_leaf
from halftunnel_vpn.host import service_manager
from halftunnel_vpn.host.record.journal import state_directory
from halftunnel_vpn.host.record.lock import HostLock, Role
from halftunnel_vpn.observe import log_format
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.observe.telemetry import Telemetry
from halftunnel_vpn.observe.telemetry_port import NO_TELEMETRY, TelemetryPort
from halftunnel_vpn.proxy.beside_tunnel import proxy_beside_tunnel
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import FaultHandler, endless
from halftunnel_vpn.transport.loop import run

log = logging.getLogger(__name__)


class Daemon(Supervisor):
    """The supervisor of the profiles in a store, with its log lines. Implements ``DaemonPort``."""

    def __init__(
        self, driver: Driver, store: ProfileStore, lines: LogRing, telemetry: TelemetryPort = NO_TELEMETRY
    ) -> None:
        companions = Companions(proxy_beside_tunnel, telemetry)
        super().__init__(driver, store, state_directory(), remembers=True, companions=companions)
        self._lines = lines

    async def logs(self, since: int, wait: float) -> list[LogLine]:
        """Return lines of the log after ``since``."""
        return await self._lines.lines(since, wait)


def entry_point() -> None:
    """``python -m halftunnel_vpn.daemon``."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT. Return exit code 0, or 1 after one sentence on standard error."""
    options = _parser().parse_args(arguments)
    try:
        with HostLock(state_directory(), Role.DAEMON, socket=options.socket):
            try:
                run(_main(options))
            except BaseExceptionGroup as group:
                raise first_leaf(group) from None
    except HalfTunnelError as error:
        service_manager.notify(f"STATUS={error}")
        print(f"halftunnel: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="halftunnel", description="The daemon behind `htvpn up`.")
    parser.add_argument("--version", action="version", version=f"halftunnel {__build__}")
    parser.add_argument("--profiles", metavar="DIR", default=str(PROFILES), help="profiles (%(default)s)")
    parser.add_argument(
        "--socket",
        metavar="PATH",
        default=DEFAULT_CONTROL_SOCKET,
        help="control socket, unless systemd has made it (%(default)s)",
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.add_argument(
        "--log-format", choices=("text", "json"), help="default: the journal's fields, or text elsewhere"
    )
    parser.add_argument("--metrics", metavar="ADDR:PORT", help="serve metrics and health there")
    return parser


async def _main(options: Namespace) -> None:
    driver = Driver(asyncio.get_running_loop())
    lines = LogRing(driver.loop)
    _start_log(options, lines)
    store = ProfileStore(Path(options.profiles))
    numbers = Metrics(__version__)
    telemetry = Telemetry("halftunnel-client", __version__, numbers, driver.wheel)
    daemon = Daemon(driver, store, lines, telemetry)
    FaultHandler(driver.loop, daemon.counters)
    add_metrics(numbers, "daemon", daemon)
    control = ControlService(daemon_routes(daemon, store), max_body=MAX_PROFILE)
    observed = observation_routes(numbers.render, lambda: problems(daemon))
    observation = ControlService(observed)
    hangups = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        driver.loop.add_signal_handler(number, daemon.stop)
    driver.loop.add_signal_handler(signal.SIGHUP, hangups.set)
    try:
        await daemon.begin()
        await _serve(options, control, observation)
        service_manager.notify("READY=1", f"STATUS={daemon.machine.state.name}")
        importlib.import_module("halftunnel_vpn.http1.exchange")  # the first command need not wait for it
        watchdog = service_manager.Watchdog(driver.wheel)
        watchdog.start(driver.clock())
        async with asyncio.TaskGroup() as tasks:
            helpers = [
                tasks.create_task(endless(_report_states(daemon), "the report of states to systemd")),
                tasks.create_task(endless(_reload_on_hangup(daemon, hangups), "the wait for SIGHUP")),
            ]
            if options.metrics is None:
                follow = ProfileMetrics(observed).follow(daemon.machine)
                helpers.append(tasks.create_task(endless(follow, "the metrics of the profile")))
            await daemon.run()
            service_manager.notify("STOPPING=1")
            for helper in helpers:
                helper.cancel()
    finally:
        await observation.close()
        await control.close()
        driver.close()
        logging.getLogger(log_format.ROOT).removeHandler(lines)


async def _serve(options: Namespace, control: ControlService, observation: ControlService) -> None:
    inherited = systemd.listeners()
    for listener in inherited:
        await control.serve_socket(listener)
    if not inherited:
        await control.serve_unix(options.socket, group=group_id())
    if options.metrics is not None:
        try:
            endpoint = net.endpoint(options.metrics)
        except Rejected as rejected:
            raise HostError(f"--metrics {options.metrics}: must be {rejected.allowed}") from None
        await observation.serve_tcp(str(endpoint.host), endpoint.port)


async def _report_states(daemon: Daemon) -> None:
    """Report each state and the last failure to systemd, for `systemctl status`."""
    since = 0
    while True:
        for event in await daemon.machine.events(since, MAX_WAIT):
            since = event["serial"]
            log.info("%s", event["state"])
            service_manager.notify(
                f"STATUS={event['state']}" + (f": {event['sentence']}" if event["sentence"] else "")
            )


async def _reload_on_hangup(daemon: Daemon, hangups: asyncio.Event) -> None:
    while True:
        await hangups.wait()
        hangups.clear()
        service_manager.notify_reloading()
        try:
            await daemon.reload()
        except HalfTunnelError as error:
            log.warning("%s", sentence_of(error))
        service_manager.notify("READY=1")


def _start_log(options: Namespace, lines: LogRing) -> None:
    log_format.configure(options.log_level, options.log_format or "text")
    root = logging.getLogger(log_format.ROOT)
    if options.log_format is None:
        journal = systemd.journal_handler(private=options.log_level == "debug")
        if journal is not None:
            root.handlers[:] = [journal]
    root.addHandler(lines)
