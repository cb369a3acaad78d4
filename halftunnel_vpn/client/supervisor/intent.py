"""What the next start shall do, kept on disk by the daemon and nowhere by a client in the foreground."""

from __future__ import annotations

import logging
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
        """Whether it outlives this process."""
        return self._state_dir is not None

    def load(self) -> Wanted:
        """Read what was wanted last. Raises HostError when the file is spoilt."""
        if self._state_dir is not None:
            self.wanted = Wanted.load(self._state_dir)
        return self.wanted

    def save(self, wanted: Wanted) -> None:
        """Persist ``wanted``. Raises HostError, and changes nothing, when that is not possible."""
        if self._state_dir is not None:
            wanted.save(self._state_dir)
        self.wanted = wanted

    def note(self, wanted: Wanted) -> None:
        """Persist ``wanted``; a full disk is logged, and is no reason not to obey."""
        try:
            self.save(wanted)
        except HostError as error:
            self.wanted = wanted
            log.error("%s", error)

    def note_down(self) -> None:
        """Nobody wants a tunnel any more."""
        if self.wanted.up:
            self.note(Wanted(self.wanted.profile, up=False))
