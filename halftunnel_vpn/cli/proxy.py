"""`htvpn proxy`: SOCKS, HTTP and forwarded ports through the exit, without root and without a TUN device."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import resource
import signal
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from halftunnel_vpn import __version__
from halftunnel_vpn.cli import process_options, profiles
from halftunnel_vpn.client.legs.handshake_sentences import explain
from halftunnel_vpn.client.tunnel_numbers import add_numbers
from halftunnel_vpn.client.userspace import StartOwner, UserspaceClient
from halftunnel_vpn.config import net, values
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.net import Endpoint
from halftunnel_vpn.config.proxy_server import (
    ProxyServerConfig,
    destination,
    password,
    place,
    place_text,
    user_name,
)
from halftunnel_vpn.config.schema import Check, Rejected, RejectedElements
from halftunnel_vpn.control.control_service import ControlService
from halftunnel_vpn.control.observation_routes import observation_routes
from halftunnel_vpn.control.text_file import read_text
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HandshakeError, HostError, UsageError, first_leaf
from halftunnel_vpn.host import service_manager
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.observe.telemetry import Telemetry
from halftunnel_vpn.proxy.service import ProxyService
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import FaultHandler
from halftunnel_vpn.transport.loop import run as run_loop

T = TypeVar("T")

DEFAULT_SOCKS = Endpoint("127.0.0.1", 1080)
"""Where SOCKS is spoken when neither the command line nor the profile names an address."""

ATTEMPT = 90.0
"""Seconds that systemd gives one attempt to connect at the start, beyond the pause before it."""


def run(options: Namespace) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP."""
    metrics = process_options.metrics_endpoint(options)
    profile = profiles.user_reader(options.profile)()
    config = wanted(options, profile.proxy_server)
    process_options.start_log(options, profile.log)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each connection is a socket
    try:
        run_loop(_main(profile, config, metrics or profile.metrics.listen), nice=max(0, profile.limits.nice))
    except BaseExceptionGroup as group:
        leaf = first_leaf(group)
        if isinstance(leaf, HandshakeError):
            raise HostError(explain(leaf)) from leaf
        raise leaf from None
    return 0


def wanted(options: Namespace, configured: ProxyServerConfig) -> ProxyServerConfig:
    """Return what is to be served: the addresses of the command line, or those of the profile.

    Raises UsageError for what cannot be served, ConfigError or HostError for a file of users.
    """
    socks = tuple(_checked("--socks", place, text) for text in options.socks)
    http = tuple(_checked("--http", place, text) for text in options.http)
    forward = dict(_forward(text) for text in options.forward)
    changes: dict[str, object] = {}
    if socks or http or forward:
        changes = {"socks": socks, "http": http, "forward": forward}
    elif not configured.is_wanted:
        changes = {"socks": (DEFAULT_SOCKS,)}
    if options.allow:
        changes["allow"] = tuple(_checked("--allow", net.network, text) for text in options.allow)
    if options.users is not None:
        changes["users"] = _users(options.users)
    return dataclasses.replace(configured, **changes)  # type: ignore[arg-type]


def _checked(option: str, check: Check[T], text: str) -> T:
    try:
        return check(text)
    except Rejected as rejected:
        raise UsageError(f"{option} {text}: must be {rejected.allowed}") from None


def _forward(text: str) -> tuple[str, str]:
    listen, equals, where = text.partition("=")
    if not equals:
        raise UsageError(f"--forward {text}: must be LISTEN=HOST:PORT, like 127.0.0.1:5432=db.internal:5432")
    return _checked("--forward", place_text, listen), _checked("--forward", destination, where)


def _users(file: str) -> Mapping[str, str]:
    """Read NAME:PASSWORD, one a line. Raises ConfigError."""
    path = Path(file)
    pairs = [line.partition(":") for line in read_text(path).splitlines() if line.strip()]
    table = {name: word for name, _, word in pairs}
    try:
        found = values.free_table(user_name, password)(table)
    except RejectedElements:
        found = {}
    if not found or len(found) != len(pairs):
        raise UsageError(f"{file}: must hold one NAME:PASSWORD a line, each name once")
    if path.stat().st_mode & 0o077:
        print(
            f"htvpn: other users can read {file}, which holds passwords; run chmod 600 on it", file=sys.stderr
        )
    return found


def state_directory(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return where this user's client remembers times and addresses; None when there is no such place."""
    named = environ.get("STATE_DIRECTORY")
    if named:
        return Path(named)
    base = environ.get("XDG_STATE_HOME")
    home = environ.get("HOME")
    if not base and not home:
        return None
    path = (Path(base) if base else Path(str(home)) / ".local" / "state") / "halftunnel"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None  # the home of `nobody` is not there
    return path if os.access(path, os.W_OK) else None


def _report_wait(sentence: str, seconds: float) -> None:
    """Report a failed attempt to systemd, which otherwise ends a unit that takes long to start."""
    service_manager.notify(f"STATUS={sentence}", f"EXTEND_TIMEOUT_USEC={round((seconds + ATTEMPT) * 1e6)}")


async def _main(profile: ClientProfile, config: ProxyServerConfig, metrics: Endpoint | None) -> None:
    driver = Driver(asyncio.get_running_loop())
    counters = Counters()
    FaultHandler(driver.loop, counters)
    numbers = Metrics(__version__)
    telemetry = Telemetry("halftunnel-proxy", __version__, numbers, driver.wheel)
    client = UserspaceClient(
        profile,
        driver,
        counters,
        make_proxy=lambda opener: ProxyService(config, opener, driver, counters),
        state_dir=state_directory(),
        start=StartOwner(
            ready=lambda: service_manager.notify("READY=1", "STATUS=connected"), waits=_report_wait
        ),
        tracing=telemetry,
    )
    numbers.add_counters("proxy", counters)
    numbers.add("proxy_connections", lambda: client.proxy.connections)
    add_numbers(numbers, client.numbers)

    async def problems() -> list[str]:
        return [] if client.is_connected else ["the proxy is not connected to the exit"]

    observation = ControlService(observation_routes(numbers.render, problems))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        driver.loop.add_signal_handler(number, client.stop)
    try:
        if metrics is not None:
            await observation.serve_tcp(str(metrics.host), metrics.port)
        telemetry.start(profile.telemetry)
        telemetry.release()
        service_manager.Watchdog(driver.wheel).start(driver.clock())
        await client.run()
        await telemetry.flush()
    finally:
        telemetry.close()
        await observation.close()
        driver.close()
