"""What the next start must do. The daemon keeps it on disk; a client in the foreground does not."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.record.wanted import Wanted

log = logging.getLogger(__name__)


class Intent:
    """The last profile that was brought up, and whether it is still wanted. ``state_dir`` None: in memory."""

    def __init__(self, state_dir: Path | None) -> None:
        self.wanted = Wanted()
        self._state_dir = state_dir

    @property
    def is_kept(self) -> bool:
        """Whether it is kept for the next process."""
        return self._state_dir is not None

    def load(self) -> Wanted:
        """Read the last record. Raises HostError if the file is corrupt."""
        if self._state_dir is not None:
            self.wanted = Wanted.load(self._state_dir)
        return self.wanted

    def save(self, wanted: Wanted) -> None:
        """Persist ``wanted``. Raises HostError, and changes nothing, if that fails."""
        if self._state_dir is not None:
            wanted.save(self._state_dir)
        self.wanted = wanted

    def note(self, wanted: Wanted) -> None:
        """Persist ``wanted``. A failure, such as a full disk, is only logged."""
        try:
            self.save(wanted)
        except HostError as error:
            self.wanted = wanted
            log.error("%s", error)

    def note_down(self) -> None:
        """Record that no tunnel is wanted."""
        if self.wanted.up:
            self.note(replace(self.wanted, up=False))
