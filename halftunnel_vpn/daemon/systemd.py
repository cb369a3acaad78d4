"""The sockets that systemd hands over (sd_listen_fds(3)), and its journal.

The journal needs systemd-python; without it, it gets plain lines. Without systemd every call does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import Any, Final

from halftunnel_vpn.observe.log_format import NUMBERS, one_line

_FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
_PRIORITIES: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


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
