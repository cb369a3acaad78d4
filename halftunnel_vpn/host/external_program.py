"""Runs the two external programs that the tunnel needs: nft and resolvconf."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from halftunnel_vpn.errors import HostError

_SYSTEM_PATH: Final = ("/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class ExternalProgram:
    """One program. It is also found where PATH lacks the directories of system programs."""

    name: str
    # What to do if it is not installed; the end of a sentence.
    missing: str
    # What to check if it does not end in time; the end of a sentence.
    slow: str

    def find(self) -> str | None:
        """Return the path of the program; None if it is not installed."""
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_PATH))
        return shutil.which(self.name, path=path)

    def run(
        self, arguments: Sequence[str], *, timeout: float, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it with ``text`` as its standard input for at most ``timeout`` seconds. Raises HostError."""
        path = self.find()
        if path is None:
            raise HostError(f"{self.name} is not installed: {self.missing}.")
        try:
            return subprocess.run(
                [path, *arguments],
                input=text,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except OSError as error:  # out of processes, memory or descriptors
            raise HostError(f"{self.name} cannot be run now ({error.strerror}).") from error
        except subprocess.TimeoutExpired as error:
            raise HostError(f"{self.name} did not end within {timeout:.0f} s: {self.slow}.") from error
