"""A git repository of 5,000 objects on the target, and a clone of it from the client."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Final

from halftunnel_vpn.errors import HostError
from lab import namespaces
from lab.topology import CLIENT, TARGET, TARGET_ADDRESS, Lab

GIT_PORT: Final = 9418

COMMITS: Final = 250
FILES: Final = 17
"""Files that each commit changes. With the commit and two trees that makes 20 objects a commit."""

OBJECTS: Final = COMMITS * (FILES + 3)

CLONE_TIMEOUT: Final = 120.0


def start_repository(lab: Lab) -> None:
    """Make the repository and serve it by git's own protocol. Raises HostError."""
    root = lab.directory / "git"
    path = root / "repository"
    namespaces.command(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)])
    namespaces.command(["git", "-C", str(path), "fast-import", "--quiet"], text="".join(_history()))
    namespaces.command(["git", "-C", str(path), "repack", "-adq", "--write-bitmap-index"])
    argv = ["git", "daemon", "--reuseaddr", "--export-all", f"--base-path={root}", f"--port={GIT_PORT}"]
    lab.start(TARGET, argv)
    lab.wait_listening(TARGET, GIT_PORT)


def clone(lab: Lab) -> float:
    """Clone the repository to the client, and return the seconds. HostError if an object is missing."""
    with tempfile.TemporaryDirectory(dir=lab.directory) as directory:
        argv = ["git", "clone", "--quiet", f"git://{TARGET_ADDRESS}/repository", f"{directory}/clone"]
        began = time.monotonic()
        lab.run(CLIENT, argv, timeout=CLONE_TIMEOUT)
        seconds = time.monotonic() - began
        counted = lab.run(CLIENT, ["git", "-C", f"{directory}/clone", "count-objects", "-v"]).stdout
        if f"in-pack: {OBJECTS}\n" not in counted:
            raise HostError(f"the clone is not whole: {counted}")
    return seconds


def missing() -> list[str]:
    """Return the programs that are not installed."""
    return [] if shutil.which("git") else ["git"]


def _history() -> Iterator[str]:
    """Yield a stream for git-fast-import(1): always the same commits."""
    draw = random.Random("history")
    for commit in range(COMMITS):
        yield "commit refs/heads/main\n"
        yield f"committer nobody <nobody@page.test> {1_700_000_000 + commit} +0000\ndata 6\nchange\n"
        for file in range(FILES):
            text = draw.randbytes(draw.randrange(300, 1200)).hex()
            yield f"M 644 inline code/file{file}.txt\ndata {len(text)}\n{text}\n"
