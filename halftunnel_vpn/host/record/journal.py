"""What has been changed on this host, and the values before; on disk before each change is made.

There is one JSON file per device in the state directory. It names the boot and the network namespace in which
it was written. In another one the kernel's part is gone already, and only files must be restored. Two network
namespaces at the same time need separate state directories.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.host_state import HostState
from halftunnel_vpn.storage.atomic_file import remove_file, replace_file

DEFAULT_STATE_DIR: Final = Path("/var/lib/halftunnel")
"""On disk and not under /run: /etc/resolv.conf survives a power failure, so its original must too."""

SUFFIX: Final = ".journal.json"
_FORMAT: Final = 1


def state_directory() -> Path:
    """Return the directory of the journals: $STATE_DIRECTORY, or the default."""
    return Path(os.environ.get("STATE_DIRECTORY") or DEFAULT_STATE_DIR)


class Journal:
    """The steps taken for one device, by name, each with the data that its undoing needs."""

    def __init__(
        self, path: Path, state: HostState, steps: dict[str, dict[str, Any]], *, is_current: bool
    ) -> None:
        self.path = path
        self.state = state
        self.steps = steps
        self.is_current = is_current
        """Whether it was written in this boot and this network namespace."""

    @classmethod
    def new(cls, state_dir: Path, state: HostState) -> Journal:
        """Return an empty journal that is not on disk yet."""
        return cls(path_of(state_dir, state.tun), state, {}, is_current=True)

    @classmethod
    def load(cls, path: Path) -> Journal | None:
        """Return the journal on disk; None if there is none. Raises HostError if it cannot be read."""
        try:
            data = json.loads(path.read_bytes())
            if data["format"] != _FORMAT:
                raise ValueError(f"format {data['format']}")
            state = HostState.from_dict(data["state"])
            steps = {str(name): dict(step) for name, step in data["steps"].items()}
            return cls(path, state, steps, is_current=data["place"] == _this_place())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise HostError(
                f"The journal {path} cannot be read ({error}): see that the host's routes and its "
                "resolv.conf are in order, then remove that file."
            ) from error

    def record(self, step: str, **data: Any) -> None:
        """Record that ``step`` is about to be taken. It is on disk when this returns."""
        self.record_all({step: data})

    def record_all(self, steps: Mapping[str, dict[str, Any]]) -> None:
        """Record that ``steps`` are about to be taken, in one write. They are on disk when this returns."""
        if any(self.steps.get(step) != data for step, data in steps.items()):
            self.steps.update(steps)
            self.save()

    def save(self) -> None:
        """Write the journal atomically. Raises HostError if the state directory cannot be written."""
        content = {
            "format": _FORMAT,
            "place": _this_place(),
            "state": self.state.as_dict(),
            "steps": self.steps,
        }
        write_atomically(self.path, json.dumps(content, indent=1), noun="journal")

    def discard(self) -> None:
        """Remove the file: everything is undone. Raises HostError if an existing file cannot be removed."""
        self.steps = {}
        if not self.path.exists():
            return  # it was never written; a read-only file system would refuse even to remove a missing file
        try:
            remove_file(self.path)
        except OSError as error:
            raise HostError(f"The journal {self.path} cannot be removed ({error.strerror}).") from error


def write_atomically(path: Path, text: str, *, noun: str = "file") -> None:
    """Replace a file of a state directory atomically. It is on disk when this returns.

    A file that has this text already is not written, so a full disk does no harm. Raises HostError with one
    sentence that calls the file ``noun``.
    """
    if _has(path, text):
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, text)
    except OSError as error:
        raise HostError(
            f"The {noun} {path} cannot be written ({error.strerror}): make room or choose another state "
            "directory."
        ) from error


def _has(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def path_of(state_dir: Path, device: str) -> Path:
    """Return the path of the journal of ``device``."""
    return state_dir / f"{device}{SUFFIX}"


def _this_place() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = os.stat("/proc/thread-self/ns/net")
    return f"{boot} {namespace.st_dev}:{namespace.st_ino}"
