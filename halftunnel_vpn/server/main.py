"""Entry of `htvpn server run`: an exit with its listeners, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import ssl
from functools import partial
from pathlib import Path

from halftunnel_vpn import __version__
from halftunnel_vpn.config.net import Endpoint
from halftunnel_vpn.config.server import ListenerConfig, ServerConfig
from halftunnel_vpn.control.observation_routes import observation_routes
from halftunnel_vpn.control.service import ControlService
from halftunnel_vpn.errors import ConfigError, first_leaf
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.server.exit import Exit
from halftunnel_vpn.server.resources import tcp_memory
from halftunnel_vpn.transport.admission import ListenLimits
from halftunnel_vpn.transport.decoy_site import DEFAULT_PAGE, Site
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import FaultHandler
from halftunnel_vpn.transport.listen import LegFactory, Listener
from halftunnel_vpn.transport.loop import run
from halftunnel_vpn.transport.tls import server_context

log = logging.getLogger(__name__)


def run_server(directory: Path, config: ServerConfig, *, metrics: Endpoint | None) -> int:
    """Be the exit until SIGINT or SIGTERM; returns the exit code 0.

    Raises ConfigError or HostError, each one sentence, when it cannot start.
    """
    _open_as_many_files_as_allowed()
    run(_main(directory, config, metrics), nice=config.limits.nice)
    return 0


def _open_as_many_files_as_allowed() -> None:
    """Each stream needs a socket; the soft limit, often 1024, is there for programs that use select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _main(directory: Path, config: ServerConfig, metrics: Endpoint | None) -> None:
    driver = Driver(asyncio.get_running_loop())
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        driver.loop.add_signal_handler(number, stop.set)
    numbers = Metrics(__version__)
    observation = ControlService(observation_routes(numbers.render, lambda: not stop.is_set()))
    try:
        async with asyncio.TaskGroup() as tasks:
            exit_ = Exit(directory, config, driver, tasks)
            FaultHandler(driver.loop, exit_.counters)
            numbers.add_counters("exit", exit_.counters)
            numbers.add_gauge("sessions", "Sessions that are open.", lambda: len(exit_.registry))
            numbers.add_gauge("memory_bytes", "Memory that clients hold.", lambda: exit_.memory.used)
            numbers.add_gauge("memory_limit_bytes", "What they may hold.", lambda: exit_.memory.limit)
            numbers.add_gauge("tcp_memory_bytes", "Buffers of all TCP sockets of the machine.", tcp_memory)
            numbers.add_gauge("streams", "Streams that have a socket.", lambda: exit_.nat.total)
            listeners = await _listen(directory, config, exit_, driver)
            if metrics is not None:
                await observation.serve_tcp(str(metrics.host), metrics.port)
            log.info("the exit is ready", extra={"clients": len(exit_.clients)})
            supervisors = [tasks.create_task(listener.supervise()) for listener in listeners]
            await stop.wait()
            log.info("the exit stops")
            for supervisor in supervisors:
                supervisor.cancel()
            for listener in listeners:
                await listener.stop_accepting()
            await exit_.drain()
            exit_.close()
            await asyncio.gather(*(listener.close() for listener in listeners))
            exit_.cancel_tasks()
    except BaseExceptionGroup as group:
        raise first_leaf(group) from None
    finally:
        await observation.close()
        driver.close()


async def _listen(directory: Path, config: ServerConfig, exit_: Exit, driver: Driver) -> list[Listener]:
    """Both roads; one listener serves both where they stand on one address and port."""
    site = _site(directory, config)
    roads: dict[tuple[str, int], list[tuple[Direction, ListenerConfig]]] = {}
    for direction, road in (
        (Direction.UPSTREAM, config.listen.upstream),
        (Direction.DOWNSTREAM, config.listen.downstream),
    ):
        roads.setdefault((road.address, road.port), []).append((direction, road))
    listeners = []
    for (address, port), served in roads.items():
        paths: dict[str, LegFactory] = {
            road.path: partial(exit_.gate.newcomer, direction) for direction, road in served
        }
        listener = Listener(
            paths,
            site,
            limits=ListenLimits(
                max_connections=config.limits.connections,
                max_connections_per_peer=config.limits.connections_per_peer,
                arrivals_per_peer=config.limits.arrivals_per_peer,
                arrivals=config.limits.arrivals,
                strangers_per_peer=config.limits.strangers_per_peer,
                strangers=config.limits.strangers,
                request_timeout=config.limits.handshake_timeout,
            ),
            trusted_proxies=config.listen.trusted_proxies,
            congestion=config.limits.congestion,
            counters=exit_.counters,
            clock=driver.clock,
            refused=exit_.log_refusal,
        )
        await listener.start(address, port, tls=_tls(directory, served[0][1]))
        listeners.append(listener)
    return listeners


def _tls(directory: Path, road: ListenerConfig) -> ssl.SSLContext | None:
    if not road.tls:
        return None
    return server_context(directory / road.certificate, directory / road.certificate_key)


def _site(directory: Path, config: ServerConfig) -> Site:
    if not config.server.site:
        return Site(page=DEFAULT_PAGE)
    try:
        return Site(page=(directory / config.server.site).read_bytes())
    except OSError as error:
        raise ConfigError(
            f"[server] site: {config.server.site} cannot be read ({error.strerror}); name a file in "
            f"{directory}."
        ) from None
