"""What systemd tells a service and wants to hear of it: sd_notify(3), sd_listen_fds(3), the journal.

systemd-python where it is installed; without it the two protocols of a few lines each are spoken here, and
the journal gets plain lines. Without systemd every call does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from typing import Any, Final

from halftunnel_vpn.observe.logs import NUMBERS, one_line
from halftunnel_vpn.timers import Timer, Wheel

_FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
_PRIORITIES: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


def notify(*assignments: str) -> None:
    """Tell the service manager ``READY=1``, ``STATUS=...`` and the like; one that is deaf is no failure."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    message = "\n".join(assignments)
    try:
        from systemd.daemon import notify as send
    except ImportError:
        _send_datagram(address, message)
    else:
        try:
            send(message)
        except OSError as error:
            _is_deaf(error)


def notify_reloading() -> None:
    """Tell that the configuration is read again; ``READY=1`` ends it (systemd.service(5))."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_interval() -> float | None:
    """Seconds between two signs of life: half of what the unit allows; None when nobody waits for any."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdigit() and int(microseconds) else None


class Watchdog:
    """Signs of life, sent by a timer of the process's own wheel: each proves that its timers run."""

    def __init__(self, wheel: Wheel) -> None:
        self._interval = watchdog_interval()
        self._timer: Timer = wheel.timer(self._ping)

    def start(self, now: float) -> None:
        """Send the first one; does nothing when nobody waits for any."""
        if self._interval is not None:
            self._ping(now)

    def _ping(self, now: float) -> None:
        assert self._interval is not None
        self._timer.arm(now + self._interval)
        notify("WATCHDOG=1")


def listeners() -> list[socket.socket]:
    """The sockets that systemd has made for us; no child shall take them for its own."""
    pid, number = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not number.isdigit():
        return []
    found = []
    for descriptor in range(_FIRST_FD, _FIRST_FD + int(number)):
        os.set_inheritable(descriptor, False)
        found.append(socket.socket(fileno=descriptor))
    return found


def journal_handler(*, private: bool) -> logging.Handler | None:
    """A handler for the journal, when standard error leads there and systemd-python is installed."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(sys.stderr.fileno())
        from systemd.journal import send
    except (OSError, ValueError, ImportError):
        return None
    if (device, inode) != (str(status.st_dev), str(status.st_ino)):
        return None
    return JournalHandler(send, private=private)


class JournalHandler(logging.Handler):
    """One entry a record, with the numbers as fields: SESSION, STREAM, LEG, DIRECTION, REASON, PEER.

    CORRELATION_ID joins the entries of one session, or of one stream of it, at both ends: it is what the
    session's ``id`` is in other logs, with the stream's number.
    """

    def __init__(self, send: Any, *, private: bool) -> None:
        super().__init__()
        self._send = send
        self._private = private

    def emit(self, record: logging.LogRecord) -> None:
        """Write one entry."""
        try:
            # journal.send wants this one as a number.
            self._send(one_line(record.getMessage()), **self.fields(record) | {"CODE_LINE": record.lineno})
        except OSError:
            self.handleError(record)

    def fields(self, record: logging.LogRecord) -> dict[str, str]:
        """Everything but the message."""
        fields = {
            "PRIORITY": str(_PRIORITIES.get(record.levelname, 6)),
            "SYSLOG_IDENTIFIER": "halftunnel",
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            "CODE_FUNC": record.funcName or "",
        }
        for name in NUMBERS:
            if hasattr(record, name):
                fields[name.upper()] = one_line(str(getattr(record, name)))
        if "ID" in fields:
            fields["CORRELATION_ID"] = "-".join(filter(None, (fields.pop("ID"), fields.get("STREAM"))))
        hidden = getattr(record, "private", None)
        if self._private and isinstance(hidden, dict):
            fields |= {f"PRIVATE_{name.upper()}": one_line(str(value)) for name, value in hidden.items()}
        if record.exc_info:
            fields["EXCEPTION"] = logging.Formatter().formatException(record.exc_info)
        return fields


def _send_datagram(address: str, message: str) -> None:
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaker:
        try:
            speaker.sendto(message.encode(), address)
        except OSError as error:
            _is_deaf(error)


def _is_deaf(error: OSError) -> None:
    logging.getLogger(__name__).debug("the service manager does not listen: %s", error.strerror)
