"""The log: one line per event on standard error, as text or as JSON.

Fields are passed in ``extra``: ``log.info("stream opened", extra={"session": 3, "stream": 17})``. ``id`` is
the session's correlation id (``log_id`` in ``protocol/keys.py``). With ``stream`` it connects lines of both
ends, and so do ``trace_id`` and ``span_id`` while traces are exported. What reveals who communicates with
whom (a destination, a name) belongs into ``extra={"private": {...}}``; it is only written at level ``debug``.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import sys
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

ROOT = "halftunnel_vpn"
"""The name of the logger above all of ours."""

NUMBERS = ("id", "session", "stream", "leg", "direction", "reason", "peer", "trace_id", "span_id")
"""Fields of ``extra`` that are written at every level."""

PEER_INTERVAL = 60.0
"""Seconds after a logged refusal for which further ones of the same peer are only counted."""

MAX_PEERS = 4096
"""Peers that one :class:`PeerLog` remembers. The one without a refusal for the longest time is discarded."""

MAX_LINES = 60
"""Lines of one :class:`PeerLog` per PEER_INTERVAL, whatever the number of peers."""


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send our log to ``stream`` (standard error) in ``form``: ``text`` or ``json``. May be called again."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    private = level == "debug"
    handler.setFormatter(JsonFormatter(private=private) if form == "json" else TextFormatter(private=private))
    root = logging.getLogger(ROOT)
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    root.propagate = False


def _fields(record: logging.LogRecord, private: bool) -> dict[str, object]:
    """Return the fields of ``extra`` in this record that this log may show."""
    fields = {name: getattr(record, name) for name in NUMBERS if hasattr(record, name)}
    hidden = getattr(record, "private", None)
    if private and isinstance(hidden, Mapping):
        fields.update(hidden)
    return fields


def one_line(text: str) -> str:
    """Remove control characters. Peers choose parts of the log; they must not forge lines or move cursors."""
    return "".join(character if character.isprintable() else "?" for character in text)


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123Z INFO session: connected session=3``."""

    def __init__(self, *, private: bool) -> None:
        super().__init__()
        self._private = private

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; below it the traceback, if there is one."""
        where = record.name.removeprefix(ROOT + ".")
        line = f"{_time(record)} {record.levelname} {where}: {one_line(record.getMessage())}"
        for name, value in _fields(record, self._private).items():
            line += f" {name}={one_line(str(value))}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``time``, ``level``, ``logger``, ``message``, then the fields."""

    def __init__(self, *, private: bool) -> None:
        super().__init__()
        self._private = private

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, whatever the message contains."""
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _fields(record, self._private).items():
            entry.setdefault(name, value)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=True)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class PeerLog:
    """A log of refusals that no peer can flood: a line per peer and minute, and MAX_LINES a minute in total.

    All others are only counted. The addresses of one IPv6 /64 count as one peer: one host can have all of
    them.
    """

    __slots__ = ("_interval", "_lines", "_logger", "_max_peers", "_peers", "_since", "_unsaid")

    def __init__(
        self, logger: logging.Logger, *, interval: float = PEER_INTERVAL, max_peers: int = MAX_PEERS
    ) -> None:
        self._logger = logger
        self._interval = interval
        self._max_peers = max_peers
        self._peers: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._since = -math.inf
        self._lines = 0
        self._unsaid = 0

    def refused(self, peer: str, reason: str, now: float) -> bool:
        """Note that ``peer`` was refused for ``reason``; return True if a line was written."""
        key = _network_of(peer)
        spoken, silent = self._peers.pop(key, (None, 0))
        if spoken is not None and now - spoken < self._interval:
            self._peers[key] = (spoken, silent + 1)
            return False
        if not self._may_speak(now):
            return False
        while len(self._peers) >= self._max_peers:
            self._peers.popitem(last=False)
        self._peers[key] = (now, 0)
        more = f" (and {silent} more since the last line)" if silent else ""
        self._logger.warning("refused: %s%s", reason, more, extra={"peer": peer, "reason": reason})
        return True

    def _may_speak(self, now: float) -> bool:
        """Return whether one more line fits the interval. The rest is summed up in the next one."""
        if now - self._since >= self._interval:
            if self._unsaid:
                self._logger.warning("refused: %d more of other peers, not listed", self._unsaid)
            self._since = now
            self._lines = self._unsaid = 0
        if self._lines >= MAX_LINES:
            self._unsaid += 1
            return False
        self._lines += 1
        return True


def _network_of(peer: str) -> str:
    """Return ``peer``, or the /64 network of an IPv6 address."""
    if ":" not in peer:
        return peer
    try:
        return str(int(ipaddress.IPv6Address(peer)) >> 64)
    except ValueError:
        return peer
