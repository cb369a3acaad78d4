"""Status reports of a service to its manager: sd_notify(3). Without systemd every call does nothing."""

from __future__ import annotations

import logging
import os
import socket
import time

from halftunnel_vpn.timers import Timer, Wheel


def notify(*assignments: str) -> None:
    """Send ``READY=1``, ``STATUS=...`` and the like to the service manager. Failures are only logged."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    message = "\n".join(assignments)
    _send_datagram(address, message)


def notify_reloading() -> None:
    """Report that the configuration is read again. ``READY=1`` ends it (systemd.service(5))."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_interval() -> float | None:
    """Return the seconds between two keep-alives: half of the unit's limit; None without a watchdog."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdigit() and int(microseconds) else None


class Watchdog:
    """Keep-alives to the service manager, sent by the process's own wheel, which proves that it runs."""

    def __init__(self, wheel: Wheel) -> None:
        self._interval = watchdog_interval()
        self._timer: Timer = wheel.timer(self._ping)

    def start(self, now: float) -> None:
        """Send the first keep-alive. Do nothing if the unit has no watchdog."""
        if self._interval is not None:
            self._ping(now)

    def _ping(self, now: float) -> None:
        assert self._interval is not None
        self._timer.arm(now + self._interval)
        notify("WATCHDOG=1")


def _send_datagram(address: str, message: str) -> None:
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaker:
        try:
            speaker.sendto(message.encode(), address)
        except OSError as error:
            _log_failure(error)


def _log_failure(error: OSError) -> None:
    logging.getLogger(__name__).debug("the service manager did not receive a report: %s", error.strerror)
