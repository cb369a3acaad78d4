"""The sockets that systemd passes to the process (sd_listen_fds(3)), and its journal.

Without systemd-python the journal receives plain lines. Without systemd every call does nothing.
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
    """Return the sockets that systemd has made for us. Remove the variables, so that no child uses them."""
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
    """Return a handler for the journal if standard error leads there and systemd-python is installed."""
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
    """Writes one journal entry per record.

    Its fields are SESSION, STREAM, LEG, DIRECTION, REASON, PEER, TRACE_ID and SPAN_ID, where they are known.

    CORRELATION_ID connects the entries of one session, or of one of its streams, at both ends. It is the
    session's ``id`` of other logs, with the number of the stream.
    """

    def __init__(self, send: Any, *, private: bool) -> None:
        super().__init__()
        self._send = send
        self._private = private

    def emit(self, record: logging.LogRecord) -> None:
        """Write one entry."""
        try:
            # journal.send expects this one as a number.
            self._send(one_line(record.getMessage()), **self.fields(record) | {"CODE_LINE": record.lineno})
        except OSError:
            self.handleError(record)

    def fields(self, record: logging.LogRecord) -> dict[str, str]:
        """Return every field except the message."""
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
