"""Reading files again while the exit runs: all on SIGHUP, and certificates when their files change.

Running legs, sessions and streams go on. New values apply to what begins afterwards. A set of files with a
mistake is refused as a whole; the old values stay in force.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from halftunnel_vpn.config.server import ListenerConfig, ServerConfig
from halftunnel_vpn.errors import ConfigError, HostError
from halftunnel_vpn.server.exit import Exit
from halftunnel_vpn.server.exit_files import (
    ExitFiles,
    Place,
    Stamps,
    certificate_stamps,
    read_certificates,
    served,
)
from halftunnel_vpn.timers import Timer
from halftunnel_vpn.transport.admission import ListenLimits
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.http_upgrade import LegFactory
from halftunnel_vpn.transport.listen import Listener

POLL_INTERVAL = 5.0
"""The poll interval in seconds for renewed certificates."""

log = logging.getLogger(__name__)


def listen_limits(config: ServerConfig) -> ListenLimits:
    """Return the limits of each listener."""
    limits = config.limits
    return ListenLimits(
        max_connections=limits.connections,
        max_connections_per_peer=limits.connections_per_peer,
        arrivals_per_peer=limits.arrivals_per_peer,
        arrivals=limits.arrivals,
        strangers_per_peer=limits.strangers_per_peer,
        strangers=limits.strangers,
        request_timeout=limits.handshake_timeout,
    )


def leg_paths(config: ServerConfig, place: Place, exit_: Exit) -> dict[str, LegFactory]:
    """Return what is served at ``place``: a factory of legs for each secret path."""
    members = served(config)[place]
    return {listener.path: partial(exit_.gate.newcomer, direction) for direction, listener in members}


class Reloader:
    """Applies the files on disk to a running exit. ``load`` reads the configuration; it raises ConfigError.

    Counted: ``reloads``, ``certificates-renewed``. Dropped: ``reload-refused``, ``certificates-refused``.
    """

    def __init__(
        self,
        directory: Path,
        load: Callable[[], ServerConfig],
        config: ServerConfig,
        exit_: Exit,
        listeners: dict[Place, Listener],
        driver: Driver,
    ) -> None:
        self._directory = directory
        self._load = load
        self._exit = exit_
        self._listeners = listeners
        # The configuration with which the process started. Some of it changes only with a restart.
        self._started = config
        # The configuration whose certificates are in use.
        self._shown = config
        self._stamps = certificate_stamps(directory, config)
        self._failed: Stamps | None = None
        self._timer: Timer = driver.wheel.timer(self._poll)
        self._timer.arm(driver.clock() + POLL_INTERVAL)

    def close(self) -> None:
        """Stop checking."""
        self._timer.cancel()

    def reload(self) -> ServerConfig | None:
        """Read all files and apply them; return the new configuration, None if it was refused."""
        try:
            config = self._load()
            stamps = certificate_stamps(self._directory, config)
            new = ExitFiles.read(self._directory, config)
        except (ConfigError, HostError) as error:
            self._exit.counters.drop("reload-refused")
            log.error("the new configuration is refused and the old one stays in force: %s", error)
            return None
        waiting = _needs_restart(self._started, config)
        if waiting:
            log.warning("a restart is needed for the new values of: %s", ", ".join(waiting))
        self._exit.apply(config, new.keys)
        for listener in self._listeners.values():
            listener.fallback = config.server.fallback
            listener.set_limits(listen_limits(config), config.listen.trusted_proxies)
        if self._listeners.keys() == new.certificates.keys() and not any(
            "listen" in name for name in waiting
        ):
            for place, listener in self._listeners.items():
                listener.paths = leg_paths(config, place, self._exit)
                listener.show(new.certificates[place], new.sites[place])
            self._shown, self._stamps, self._failed = config, stamps, None
        self._exit.counters.count("reloads")
        log.info("all files were read again", extra={"clients": len(self._exit.clients)})
        return config

    def _poll(self, now: float) -> None:
        try:
            self._renew()
        finally:
            self._timer.arm(now + POLL_INTERVAL)

    def _renew(self) -> None:
        stamps = certificate_stamps(self._directory, self._shown)
        if stamps == self._stamps:
            return
        try:
            certificates = read_certificates(self._directory, self._shown)
        except ConfigError as error:
            # Perhaps only one of the two files has been written yet. A second failure is an error.
            if stamps == self._failed:
                self._stamps = stamps
                self._exit.counters.drop("certificates-refused")
                log.error("the new certificates are refused and the old ones stay in force: %s", error)
            self._failed = stamps
            return
        for place, listener in self._listeners.items():
            fresh = certificates[place]
            if listener.tls is not None and fresh is not None:
                listener.tls.adopt(fresh)
        self._stamps, self._failed = stamps, None
        self._exit.counters.count("certificates-renewed")
        log.info("certificates are renewed")


def _needs_restart(old: ServerConfig, new: ServerConfig) -> list[str]:
    """Return the keys with new values that need a restart."""
    values: dict[str, Callable[[ServerConfig], object]] = {
        "[limits] congestion": lambda config: config.limits.congestion,
        "[limits] nice": lambda config: config.limits.nice,
        "[control] socket": lambda config: config.control.socket,
        "[web] listen": lambda config: config.web.listen,
        "[metrics] listen": lambda config: config.metrics.listen,
        "[telemetry]": lambda config: config.telemetry,
        "[listen.upstream] address, port, tls": lambda config: _fixed(config.listen.upstream),
        "[listen.downstream] address, port, tls": lambda config: _fixed(config.listen.downstream),
    }
    return [name for name, value in values.items() if value(old) != value(new)]


def _fixed(listener: ListenerConfig) -> tuple[str, int, bool]:
    return listener.address, listener.port, listener.tls
