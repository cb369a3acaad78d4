"""What has been changed on this host and what stood there before, on disk before each change is made.

One JSON file per device in the state directory. It names the boot and the network namespace it speaks
of: in another one the kernel's part is gone already, and only files are to be put back. Two network
namespaces at once need a state directory each.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.state import HostState
from halftunnel_vpn.storage.atomic_file import remove_file, replace_file

DEFAULT_STATE_DIR: Final = Path("/var/lib/halftunnel")
"""On disk and not under /run: /etc/resolv.conf survives a power cut, so its original must too."""

SUFFIX: Final = ".journal.json"
_FORMAT: Final = 1


def state_directory() -> Path:
    """Where journals are kept: what systemd or the caller names in $STATE_DIRECTORY, else the usual place."""
    return Path(os.environ.get("STATE_DIRECTORY") or DEFAULT_STATE_DIR)


class Journal:
    """The steps taken for one device, by name, each with what is needed to undo it."""

    def __init__(self, path: Path, state: HostState, steps: dict[str, dict[str, Any]], *, here: bool) -> None:
        self.path = path
        self.state = state
        self.steps = steps
        self.here = here
        """Whether it was written in this boot and this network namespace."""

    @classmethod
    def new(cls, state_dir: Path, state: HostState) -> Journal:
        """An empty one, not on disk yet."""
        return cls(path_of(state_dir, state.tun), state, {}, here=True)

    @classmethod
    def load(cls, path: Path) -> Journal | None:
        """The one on disk, None when there is none; HostError when it cannot be read."""
        try:
            data = json.loads(path.read_bytes())
            if data["format"] != _FORMAT:
                raise ValueError(f"format {data['format']}")
            state = HostState.from_dict(data["state"])
            steps = {str(name): dict(step) for name, step in data["steps"].items()}
            return cls(path, state, steps, here=data["place"] == _this_place())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise HostError(
                f"The journal {path} cannot be read ({error}): see that the host's routes and its "
                "resolv.conf are in order, then remove that file."
            ) from error

    def record(self, step: str, **data: Any) -> None:
        """Write down that ``step`` is about to be taken; on disk when this returns."""
        if self.steps.get(step) != data:
            self.steps[step] = data
            self.save()

    def save(self) -> None:
        """Put it on disk, atomically; HostError when the state directory cannot be written."""
        content = {
            "format": _FORMAT,
            "place": _this_place(),
            "state": self.state.as_dict(),
            "steps": self.steps,
        }
        write_atomically(self.path, json.dumps(content, indent=1), noun="journal")

    def discard(self) -> None:
        """Everything is undone: forget it. HostError when the file is there and cannot be removed."""
        self.steps = {}
        if not self.path.exists():
            return  # so it could not even be written: a read-only file system would refuse to remove nothing
        try:
            remove_file(self.path)
        except OSError as error:
            raise HostError(f"The journal {self.path} cannot be removed ({error.strerror}).") from error


def write_atomically(path: Path, text: str, *, noun: str = "file") -> None:
    """Replace a file of a state directory as a whole, on disk when this returns.

    A file that has this text already is left alone: on a full disk, nothing needs room. Raises HostError
    with one sentence about what ``noun`` calls it.
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
    """Where the journal of ``device`` is."""
    return state_dir / f"{device}{SUFFIX}"


def _this_place() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = os.stat("/proc/thread-self/ns/net")
    return f"{boot} {namespace.st_dev}:{namespace.st_ino}"
