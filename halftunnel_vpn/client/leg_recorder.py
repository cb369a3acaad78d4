"""The log of `htvpn audit record`: one line for each record on the paths, without names and addresses.

Nothing of it is in the way of a client that records nothing: while it does, it stands between the session
and each of its legs.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO

from halftunnel_vpn import __version__
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.protocol.interfaces import Buffer
from halftunnel_vpn.protocol.records import TAG_LENGTH
from halftunnel_vpn.protocol.wire import HEADER_LENGTH
from halftunnel_vpn.session.clock_parameters import SPREAD, TRICKLE_CELL
from halftunnel_vpn.session.legs import Movement, SessionLeg
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.timers import Timer
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.leg import Leg
from halftunnel_vpn.transport.sealed_leg import SealedLeg

FORMAT: Final = 1
"""Version of the format, in the first line."""

MAX_LINES: Final = 2_000_000
"""Records of one log; the recording ends there."""

MAX_SECONDS: Final = 86_400.0
"""Seconds of one recording."""

_KEEPALIVE: Final = 350
# Bytes of a keepalive at most; what is longer and has no padding is data without shaping.

_TRICKLE: Final = TRICKLE_CELL * (1 + SPREAD) + 1

log = logging.getLogger(__name__)


class LegRecorder:
    """One recording at a time, of the session of the moment, into a file in ``directory``."""

    def __init__(self, directory: Path, driver: Driver) -> None:
        self._directory = directory
        self._driver = driver
        self._file: TextIO | None = None
        self._session: Session | None = None
        self._taps: dict[SessionLeg, _Tap] = {}
        # Small numbers for legs and domains, in the order in which they appear.
        self._numbers: dict[object, int] = {}
        self._domains: dict[str, int] = {}
        self._lines = 0
        self._began = 0.0
        self._end: Timer = driver.wheel.timer(lambda now: self.stop())

    def start(self, seconds: float, mode: str, session: Session | None) -> Path:
        """Record for ``seconds``; return the file. Raises HostError if that cannot be done."""
        if self._file is not None:
            raise HostError("A recording goes on already: wait until it ends.")
        name = time.strftime("audit-%Y%m%d-%H%M%S.jsonl", time.gmtime())
        path = self._directory / name
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise HostError(f"{path} cannot be written: {error.strerror}.") from error
        self._file = os.fdopen(descriptor, "w")
        self._began = self._driver.clock()
        self._lines = 0
        self._numbers.clear()
        self._domains.clear()
        head = {"halftunnel_audit": FORMAT, "mode": mode, "version": __version__, "started": time.time()}
        self._file.write(json.dumps(head) + "\n")
        self._end.arm(self._began + min(seconds, MAX_SECONDS))
        self.legs_changed(session)
        return path

    def stop(self) -> None:
        """End the recording, if there is one."""
        file, self._file = self._file, None
        if file is None:
            return
        self._end.cancel()
        for tap in self._taps.values():
            tap.remove()
        self._taps.clear()
        self._session = None
        try:
            file.close()
        except OSError as error:
            log.warning("the recording is not whole: %s", error.strerror)
        else:
            log.info("the recording has ended after %d records", self._lines)

    def legs_changed(self, session: Session | None) -> None:
        """Listen to the legs of ``session`` that are new, and forget those that are gone."""
        if self._file is None:
            return
        legs = session.legs if session is not None else []
        for leg in [leg for leg in self._taps if leg not in legs]:
            del self._taps[leg]
        for leg in legs:
            if leg not in self._taps and isinstance(leg.port, SealedLeg):
                assert session is not None
                self._taps[leg] = _Tap(self, session, leg, leg.port)

    def write(self, leg: SessionLeg, way: str, size: int, pad: int, late: float | None, escape: str) -> None:
        """Add the line of one record; ``late`` is None, and no slot is meant, where none is known."""
        file = self._file
        if file is None:
            return
        place = (leg.direction, leg.number)
        number = self._numbers.setdefault(place, len(self._numbers))
        domain = self._domains.setdefault(f"{leg.direction} {leg.domain}", len(self._domains))
        is_slot = late is not None or (way == "down" and pad > 0)
        line = (
            f'{{"t": {self._driver.clock() - self._began:.6f}, "dir": "{way}", "leg": {number}, '
            f'"domain": {domain}, "size": {size}, "pad": {pad}, '
            f'"late": {"null" if late is None else f"{late:.6f}"}, '
            f'"slot": {"true" if is_slot else "false"}, "escape": {json.dumps(escape or None)}}}\n'
        )
        self._lines += 1
        try:
            file.write(line)
        except OSError as error:  # the disk is full
            log.warning("the recording stops: %s", error.strerror)
            self.stop()
            return
        if self._lines >= MAX_LINES:
            self.stop()

    def clock(self) -> float:
        """Return the time now."""
        return self._driver.clock()


class _Tap:
    """Stands between the session, one leg and its WebSocket; implements LegPort and LegListener."""

    __slots__ = ("_leg", "_log", "_sealed", "_session", "_shaper")

    def __init__(self, log: LegRecorder, session: Session, leg: SessionLeg, sealed: SealedLeg) -> None:
        self._log = log
        self._session = session
        self._shaper = session.shaper
        self._leg = leg
        self._sealed = sealed
        leg.port = self
        sealed.listen_through(self)

    def remove(self) -> None:
        """Have both speak to each other directly again."""
        self._leg.port = self._sealed
        self._sealed.listen_through(self._sealed)

    # --- LegPort ---------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """As the leg's."""
        return self._sealed.writable

    def send_train(self, parts: Sequence[Buffer]) -> int:
        """Send, and write down what was sent."""
        shaper = self._shaper
        slot = shaper.writer.sending if shaper is not None else None
        now = self._log.clock()
        size = self._sealed.send_train(parts)
        if slot is not None:
            padding, deadline, escape = slot
            self._log.write(self._leg, "up", size, padding, now - deadline, escape)
        else:
            self._log.write(self._leg, "up", size, 0, None, shaper.escape if shaper is not None else "")
        return size

    def set_pace(self, pace: float) -> None:
        """As the leg's."""
        self._sealed.set_pace(pace)

    def movement(self) -> Movement:
        """As the leg's."""
        return self._sealed.movement()

    def close(self, reason: str) -> None:
        """As the leg's."""
        self._sealed.close(reason)

    # --- LegListener -----------------------------------------------------------------------------

    def leg_opened(self, leg: Leg) -> None:
        """As the sealed leg's."""
        self._sealed.leg_opened(leg)

    def record_received(self, leg: Leg, record: Buffer) -> None:
        """Hand the record on, and write down what came."""
        size = len(record)
        before = self._leg.padding_received
        self._sealed.record_received(leg, record)
        pad = self._leg.padding_received - before
        escape = ""
        if self._shaper is not None:
            if pad and size <= _TRICKLE:
                escape = "trickle"
            elif not pad:
                escape = "keepalive" if size <= _KEEPALIVE + HEADER_LENGTH + TAG_LENGTH else "unshaped"
        self._log.write(self._leg, "down", size, pad, None, escape)

    def leg_writable(self, leg: Leg) -> None:
        """As the sealed leg's."""
        self._sealed.leg_writable(leg)

    def leg_closed(self, leg: Leg, reason: str) -> None:
        """As the sealed leg's."""
        self._sealed.leg_closed(leg, reason)
