"""The entry of `htvpn server run`: an exit with its listeners, until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from halftunnel_vpn import __version__
from halftunnel_vpn.config.net import Endpoint, SocketName
from halftunnel_vpn.config.server import ServerConfig
from halftunnel_vpn.control.control_service import ControlService
from halftunnel_vpn.control.exit_routes import exit_routes
from halftunnel_vpn.control.exit_socket import runtime_socket, socket_to_serve
from halftunnel_vpn.control.observation_routes import observation_routes
from halftunnel_vpn.control.peer import EXIT_GROUP, group_id
from halftunnel_vpn.control.web.login import Login
from halftunnel_vpn.control.web.login_route import web_login_route
from halftunnel_vpn.errors import HostError, first_leaf
from halftunnel_vpn.host import service_manager
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.observe.telemetry import Telemetry
from halftunnel_vpn.server.administration import Administration
from halftunnel_vpn.server.exit import Exit
from halftunnel_vpn.server.exit_files import ExitFiles, Place
from halftunnel_vpn.server.exit_metrics import add_metrics
from halftunnel_vpn.server.readiness import Readiness, exit_checks
from halftunnel_vpn.server.reload import Reloader, leg_paths, listen_limits
from halftunnel_vpn.server.web_service import WebService
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import FaultHandler, endless
from halftunnel_vpn.transport.listen import Listener, ListenerOwner
from halftunnel_vpn.transport.loop import run

log = logging.getLogger(__name__)


def run_server(
    directory: Path,
    config: ServerConfig,
    *,
    load: Callable[[], ServerConfig],
    reloaded: Callable[[ServerConfig], None],
    metrics: Endpoint | None,
) -> int:
    """Run the exit until SIGINT or SIGTERM; return the exit code 0.

    ``load`` returns the configuration; SIGHUP calls it again. ``reloaded`` is called with a configuration
    that was applied by a reload. Raises ConfigError or HostError, each with one sentence, when the exit
    cannot start.
    """
    _open_as_many_files_as_allowed()
    run(_main(directory, config, load, reloaded, metrics), nice=config.limits.nice)
    return 0


def _open_as_many_files_as_allowed() -> None:
    """Raise the soft limit. Each stream needs a socket; the usual 1024 exists for users of select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _main(
    directory: Path,
    config: ServerConfig,
    load: Callable[[], ServerConfig],
    reloaded: Callable[[ServerConfig], None],
    metrics: Endpoint | None,
) -> None:
    driver = Driver(asyncio.get_running_loop())
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        driver.loop.add_signal_handler(number, stop.set)
    driver.loop.add_signal_handler(signal.SIGHUP, lambda: None)  # ignored: all files are about to be read
    numbers = Metrics(__version__)
    telemetry = Telemetry("halftunnel-exit", __version__, numbers, driver.wheel)
    try:
        telemetry.start(config.telemetry)
        telemetry.release()
        async with contextlib.AsyncExitStack() as undo, asyncio.TaskGroup() as tasks:
            exit_ = Exit(directory, config, driver, tasks, telemetry)
            FaultHandler(driver.loop, exit_.counters)
            listeners = await listen(directory, config, exit_, driver)
            checks = exit_checks(lambda: exit_.config, listeners, exit_.resolver, stop.is_set)
            readiness = Readiness(checks, driver.clock)
            observation = ControlService(observation_routes(numbers.render, readiness.problems))
            undo.push_async_callback(observation.close)
            add_metrics(numbers, exit_, lambda: exit_.config, listeners, readiness)
            reloader = Reloader(directory, load, config, exit_, listeners, driver)

            def reload() -> None:
                new = reloader.reload()
                if new is not None:
                    reloaded(new)

            driver.loop.add_signal_handler(signal.SIGHUP, reload)
            helpers: list[asyncio.Task[None]] = []
            if metrics is not None:
                await observation.serve_tcp(str(metrics.host), metrics.port)
                helpers.append(tasks.create_task(endless(readiness.run(), "the check of readiness")))
            administration = Administration(exit_, directory, driver.clock, readiness.problems)
            login, place = Login(), _web_place(config, directory)
            control = ControlService(
                exit_routes(administration) | web_login_route(login, place, driver.clock)
            )
            undo.push_async_callback(control.close)
            await _serve_control(control, config, directory)
            if place is not None:
                web = WebService(exit_, administration, login, driver)
                undo.push_async_callback(web.close)
                await web.serve(place, _socket_group())
                helpers.append(tasks.create_task(endless(web.run(), "the feed of the web page")))
            service_manager.Watchdog(driver.wheel).start(driver.clock())
            log.info("the exit is ready", extra={"clients": len(exit_.clients)})
            supervisors = [tasks.create_task(listener.supervise()) for listener in listeners.values()]
            await stop.wait()
            log.info("the exit stops")
            reloader.close()
            for helper in (*supervisors, *helpers):
                helper.cancel()
            for listener in listeners.values():
                await listener.stop_accepting()
            await exit_.drain()
            exit_.close()
            await asyncio.gather(*(listener.close() for listener in listeners.values()))
            exit_.cancel_tasks()
            await telemetry.flush()
    except BaseExceptionGroup as group:
        raise first_leaf(group) from None
    finally:
        telemetry.close()
        driver.close()


def _socket_group() -> int | None:
    """Return the group that may use the sockets of this exit; None without one."""
    group = group_id(EXIT_GROUP)
    if group is not None and os.geteuid() != 0 and group not in (os.getegid(), *os.getgroups()):
        group = None  # only a member may give the socket to the group
    return group


def _web_place(config: ServerConfig, directory: Path) -> Endpoint | str | None:
    """Return where the web page is served: an address, or the path of a socket."""
    listen = config.web.listen
    return runtime_socket(listen.name, directory) if isinstance(listen, SocketName) else listen


async def _serve_control(control: ControlService, config: ServerConfig, directory: Path) -> None:
    """Serve the control socket. Raises HostError for a configured one that cannot be had."""
    configured = config.control.socket
    try:
        await control.serve_unix(socket_to_serve(configured, directory), group=_socket_group())
    except HostError as error:
        if configured:
            raise
        log.warning("the exit runs without a control socket: %s", error)


async def listen(directory: Path, config: ServerConfig, exit_: Exit, driver: Driver) -> dict[Place, Listener]:
    """Start the listeners of both directions, by address and port. Raises ConfigError or HostError."""
    files = ExitFiles.read(directory, config)
    listeners: dict[Place, Listener] = {}
    for place, certificates in files.certificates.items():
        listener = Listener(
            leg_paths(config, place, exit_),
            files.sites[place],
            ListenerOwner(exit_.counters, driver.clock, exit_.log_refusal),
            fallback=config.server.fallback,
            limits=listen_limits(config),
            trusted_proxies=config.listen.trusted_proxies,
            congestion=config.limits.congestion,
        )
        await listener.start(*place, tls=certificates)
        listeners[place] = listener
    return listeners
