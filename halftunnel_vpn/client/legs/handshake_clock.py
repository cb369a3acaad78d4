"""The timestamps of handshakes. They always increase, and use the exit's time if the host's is wrong.

The exit refuses a timestamp that is not later than the last one of this client (a replay), or too far from
its own clock. So the last timestamp is also kept on disk. When the exit reports in an authenticated answer
that the clock is wrong, the exit's time is used from then on. The host's clock is never set.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.record.journal import write_atomically

FILE = "handshake-times.json"

MAX_PROFILES = 64
"""Pairs of client and exit whose last timestamp is kept on disk. The oldest one is discarded."""

MAX_FILE = 64 * 1024
"""The most bytes of the file that are read. MAX_PROFILES entries need far less."""

AGREES_WITHIN = 60.0
"""Seconds of difference to the exit's clock below which the host's clock is used again."""

SECOND = 1_000_000
"""Microseconds per second. A timestamp is in microseconds."""

LAST_SECOND = 1 << 40
"""Seconds since 1970 from which on a time is invalid: microseconds must fit the 64 bits of a message."""

log = logging.getLogger(__name__)


class TimestampMemory:
    """The last timestamp of one pair of client and exit, in a file of ``directory`` that several pairs share.

    If the file cannot be read or written, one warning is logged and nothing is kept over a restart.
    """

    def __init__(self, directory: Path, client_public: bytes, exit_public: bytes) -> None:
        self._path = directory / FILE
        self._key = hashlib.sha256(exit_public + client_public).hexdigest()[:32]
        self._has_warned = False

    def load(self) -> int:
        """Return the last timestamp; 0 if unknown."""
        last = self._read().get(self._key, 0)
        return last if 0 <= last < LAST_SECOND * SECOND else 0

    def save(self, timestamp: int) -> None:
        """Write the timestamp to disk."""
        kept = self._read() | {self._key: timestamp}
        others = sorted((key for key in kept if key != self._key), key=lambda key: kept[key])
        for key in others[: max(0, len(kept) - MAX_PROFILES)]:
            del kept[key]
        try:
            write_atomically(self._path, json.dumps(kept))
        except HostError as error:
            self._warn(str(error))

    def _read(self) -> dict[str, int]:
        try:
            with self._path.open("rb") as file:
                stored = json.loads(file.read(MAX_FILE + 1))
            if not isinstance(stored, dict) or not all(type(value) is int for value in stored.values()):
                raise ValueError("no table of numbers")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            self._warn(f"{self._path} cannot be read and starts empty: {error}")
            return {}
        return stored

    def _warn(self, sentence: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("%s", sentence)


class HandshakeClock:
    """Creates the timestamps of one client's handshakes. With ``memory`` None they are not kept on disk.

    ``wall_clock`` returns the host's time in seconds since 1970. ``elapsed`` counts seconds, including
    suspension, and is never set.
    """

    def __init__(
        self,
        memory: TimestampMemory | None = None,
        *,
        wall_clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._memory = memory
        self._wall_clock = wall_clock
        self._elapsed = elapsed
        self._last: int | None = None
        """None until it was read from disk."""
        self._exit_offset: float | None = None
        """The exit's time minus ``elapsed``, while the host's clock is not used."""
        self._is_shared = False
        """Whether the exit knew a later timestamp than ours in the current attempt or the last one."""

    @property
    def notices(self) -> list[str]:
        """Notices for the user about the time of this machine, a sentence each."""
        found = []
        if self._exit_offset is not None:
            behind = self._exit_offset + self._elapsed() - self._wall_clock()
            direction = "behind" if behind > 0 else "ahead of"
            found.append(
                f"The clock of this machine is {_duration(abs(behind))} {direction} the exit's; the tunnel "
                "goes by the exit's. Set it right, which works through the tunnel (timedatectl set-ntp true)."
            )
        if self._is_shared:
            found.append(
                "The exit has seen a later time from this profile: this machine's clock has gone back, or "
                "another device uses the same profile. Give each device its own (htvpn server add-client)."
            )
        return found

    async def next(self) -> int:
        """Return a new timestamp. It is on disk when this returns."""
        memory = self._memory
        if self._last is None:
            self._last = 0 if memory is None else await asyncio.to_thread(memory.load)
        self._last = timestamp = max(int(self._now() * SECOND), self._last + 1)
        if memory is not None:
            await asyncio.to_thread(memory.save, timestamp)
        return timestamp

    def accepted(self, *, at_once: bool) -> None:
        """Note that the exit has accepted a timestamp, ``at_once`` or after it had refused others."""
        self._is_shared = self._is_shared and not at_once

    def follow(self, exit_time: int) -> None:
        """Use the exit's clock: it refused ours, and its proven time is ``exit_time`` (microseconds)."""
        if exit_time >= LAST_SECOND * SECOND:
            return
        self._exit_offset = exit_time / SECOND - self._elapsed()
        self._last = 0  # it was outside of what the exit accepts

    def skip(self, last: int) -> None:
        """Continue after ``last``, the last timestamp that the exit has accepted. Ours was stale."""
        if last >= LAST_SECOND * SECOND:
            return
        self._last = max(self._last or 0, last)
        self._is_shared = True

    def _now(self) -> float:
        host = self._wall_clock()
        if self._exit_offset is None:
            return host
        exit_time = self._exit_offset + self._elapsed()
        if abs(exit_time - host) > AGREES_WITHIN:
            return exit_time
        self._exit_offset = None  # the host's clock was corrected
        return host


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"
