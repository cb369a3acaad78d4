"""A real terminal of any size (tmux), and what is on its screen."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Final

PATIENCE: Final = 60.0
"""Seconds that a text may take to appear."""


class Terminal:
    """Runs a shell ``command`` in a terminal of 80x24; ``ended with CODE`` appears when it has ended."""

    def __init__(self, directory: Path, command: str) -> None:
        self._tmux = ["tmux", "-S", str(directory / "tmux"), "-f", "/dev/null"]
        self.run("new-session", "-d", "-x", "80", "-y", "24", f"{command}; echo ended with $?; sleep 600")

    def run(self, *words: str) -> str:
        """Output of a tmux command."""
        return subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True).stdout

    def screen(self, *options: str) -> str:
        """The lines of the screen; ``-e``: with escape sequences."""
        return self.run("capture-pane", "-p", *options)

    def press(self, key: str) -> None:
        """Type a key."""
        self.run("send-keys", key)

    def resize(self, width: int, height: int) -> None:
        """Give it another size."""
        self.run("resize-window", "-x", str(width), "-y", str(height))

    def until(self, *parts: str) -> str:
        """The screen, once all ``parts`` are on it."""
        deadline = time.monotonic() + PATIENCE
        while not all(part in (shown := self.screen()) for part in parts):
            assert time.monotonic() < deadline, f"no {parts} in\n{shown}"
            time.sleep(0.05)
        return shown

    def process(self) -> int:
        """The number of the process of the command."""
        shell = self.run("display-message", "-p", "#{pane_pid}").strip()
        return int(Path(f"/proc/{shell}/task/{shell}/children").read_text().split()[0])

    def close(self) -> None:
        """End it with everything in it."""
        self.run("kill-server")
