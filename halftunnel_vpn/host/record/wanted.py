"""What the next start of the daemon must do: which profile is active, and whether it was up."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.record.journal import write_atomically

FILE: Final = "wanted.json"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """``profile`` is the last profile that was brought up. ``up``: it has not been brought down since.

    ``exit`` is the one of its exits that was named, and ``fastest`` whether the fastest was asked for.
    """

    profile: str | None = None
    up: bool = False
    exit: str | None = None
    fastest: bool = False

    @classmethod
    def load(cls, state_dir: Path) -> Wanted:
        """Return the saved record; an empty one if there is none. Raises HostError if the file is corrupt."""
        path = state_dir / FILE
        try:
            data = json.loads(path.read_bytes())
            if data.pop("format") != _FORMAT:
                raise ValueError("another format")
            wanted = cls(**data)
            if not all(isinstance(name, str | None) for name in (wanted.profile, wanted.exit)):
                raise ValueError("another shape")
            if not all(isinstance(value, bool) for value in (wanted.up, wanted.fastest)):
                raise ValueError("another shape")
            return wanted
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise HostError(
                f"The file {path} cannot be read ({error}): remove it and run `htvpn up`."
            ) from error

    @staticmethod
    def forget(state_dir: Path) -> None:
        """Remove the record. Raises HostError."""
        path = state_dir / FILE
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"The file {path} cannot be removed ({error.strerror}).") from error

    def save(self, state_dir: Path) -> None:
        """Write the record atomically. Raises HostError."""
        data = {"format": _FORMAT, **asdict(self)}
        for key in ("exit", "fastest"):
            if not data[key]:
                del data[key]  # an earlier version does not know it
        write_atomically(state_dir / FILE, json.dumps(data))
