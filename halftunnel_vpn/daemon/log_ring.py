"""The last lines of the log, kept in memory for `htvpn logs`."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from halftunnel_vpn.control.daemon_routes import LogLine
from halftunnel_vpn.control.ring import Ring
from halftunnel_vpn.observe.log_format import NUMBERS, one_line

MAX_LINES: Final = 1000
"""Lines that are kept."""

MAX_MESSAGE: Final = 1000
"""Characters that are kept of one message."""


class LogRing(logging.Handler):
    """Keeps log lines without private data, whatever the level. Other threads use the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._lines: Ring[LogLine] = Ring(MAX_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line of one record."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._keep, record)

    def _keep(self, record: logging.LogRecord) -> None:
        self._lines.append(
            LogLine(
                serial=self._lines.last_serial + 1,
                time=record.created,
                level=record.levelname.lower(),
                logger=record.name,
                message=one_line(record.getMessage())[:MAX_MESSAGE],
                fields={name: getattr(record, name) for name in NUMBERS if hasattr(record, name)},
            )
        )

    async def lines(self, since: int, wait: float) -> list[LogLine]:
        """Return lines after ``since``, oldest first; wait up to ``wait`` seconds for the first one."""
        return [line for _, line in await self._lines.read(since, wait)]
