"""Where the control socket of an exit is."""

from __future__ import annotations

import os
from pathlib import Path

SOCKET_NAME = "control.sock"

RUNTIME_DIRECTORIES = Path("/run")
"""Where systemd makes the runtime directory of a unit, which has the name of the exit's directory."""


def socket_to_serve(configured: str, directory: Path) -> str:
    """Return the path at which an exit serves: configured, or in its unit's runtime directory, or its own."""
    return str(directory / configured) if configured else runtime_socket(SOCKET_NAME, directory)


def runtime_socket(name: str, directory: Path) -> str:
    """Return the path of the socket ``name`` of an exit, in its unit's runtime directory or its own."""
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return str(Path(runtime or directory) / name)


def sockets_to_ask(configured: str, directory: Path) -> list[str]:
    """Return the paths at which an exit of ``directory`` may serve, the likeliest first."""
    if configured:
        return [str(directory / configured)]
    resolved = directory.resolve()
    # One exit of several has the runtime directory halftunnel-servers/NAME.
    places = (resolved, RUNTIME_DIRECTORIES / resolved.parent.name / resolved.name)
    return [str(place / SOCKET_NAME) for place in (*places, RUNTIME_DIRECTORIES / resolved.name)]
