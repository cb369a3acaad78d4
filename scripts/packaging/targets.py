"""What the packages are built for: architectures, and the Pythons of the Debian releases."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR: Final = "http://deb.debian.org/debian"

PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
"""The packages of others are put in for all of these: one .deb serves every release that has one of them."""

COMPILED_FOR: Final = {"3.11": "bookworm", "3.13": "trixie"}
"""Pythons that our modules are compiled for, and whose headers are taken. On others the sources run."""


class Architecture(NamedTuple):
    """A kind of machine as Debian, GCC and wheels call it."""

    debian: str
    triplet: str
    wheel: str

    @property
    def compiler(self) -> str:
        """The name of its C compiler; the machine's own has this name too."""
        return f"{self.triplet}-gcc"


ARCHITECTURES: Final = {
    "amd64": Architecture("amd64", "x86_64-linux-gnu", "x86_64"),
    "arm64": Architecture("arm64", "aarch64-linux-gnu", "aarch64"),
}


def run(argv: Sequence[str | Path], **options: Any) -> str:
    """Run a program; returns its output. Ends with its own words when it fails."""
    done = subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, check=False, **options
    )
    if done.returncode:
        raise SystemExit(
            f"package: `{' '.join(map(str, argv[:4]))} ...` failed: {done.stderr.strip() or done.stdout}"
        )
    return done.stdout


def headers(python: str, architecture: Architecture, cache: Path) -> Path:
    """Return a directory with usr/include of that Python: its -dev package, unpacked, not installed."""
    place = cache / f"headers-{python}-{architecture.debian}"
    if place.is_dir():
        return place
    with tempfile.TemporaryDirectory() as scratch:
        state = Path(scratch)
        (state / "lists/partial").mkdir(parents=True)
        (state / "cache/archives/partial").mkdir(parents=True)
        (state / "status").touch()
        suite = COMPILED_FOR[python]
        (state / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n")
        apt = [
            "apt-get", "-qq",
            "-o", f"Dir::Etc::sourcelist={state}/sources.list", "-o", "Dir::Etc::sourceparts=/dev/null",
            "-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::State::status={state}/status",
            "-o", f"Dir::Cache={state}/cache",
            "-o", "Dir::Etc::preferences=/dev/null", "-o", "Dir::Etc::preferencesparts=/dev/null",
            "-o", "APT::Sandbox::User=root", "-o", f"APT::Architecture={architecture.debian}",
            "-o", f"APT::Architectures={architecture.debian}",
        ]  # fmt: skip
        run([*apt, "update"])
        run([*apt, "download", f"libpython{python}-dev"], cwd=state)
        run(["dpkg-deb", "-x", next(state.glob("*.deb")), state / "tree"])
        draft = place.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.move(state / "tree", draft)
        draft.rename(place)
    return place
