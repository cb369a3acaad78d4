"""The daemon as the commands use it: start it if it is down, send it requests."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from halftunnel_vpn.cli.installation import how_to_install
from halftunnel_vpn.config import DEFAULT_CONTROL_SOCKET
from halftunnel_vpn.control import requests
from halftunnel_vpn.errors import HostError

UNIT = "halftunnel.service"

SYSTEMD = Path("/run/systemd/system")
"""This directory exists if systemd runs (sd_booted(3))."""

START_TIMEOUT = 90.0
"""Seconds within which systemd must start the daemon."""


def ensure(path: str | None) -> str:
    """Return the control socket of a running daemon; start it if systemd can. Raises HostError."""
    if path is not None:
        if not requests.is_served(path):
            raise HostError(f"no daemon answers at {path}; start it, or omit --socket")
        return path
    if requests.ask(DEFAULT_CONTROL_SOCKET, "GET", "/v1/status") is None:
        _start()
    return DEFAULT_CONTROL_SOCKET


def command(
    path: str,
    method: str,
    target: str,
    content: dict[str, Any] | bytes | None = None,
    *,
    timeout: float = 30.0,
) -> dict[str, Any]:
    """Send one request to the daemon. Raises HostError when it refuses or does not run."""
    answer = requests.command(path, method, target, content, timeout=timeout)
    if answer is None:
        raise HostError("the daemon is not running; 'htvpn up' or 'systemctl start halftunnel' starts it")
    return answer


def import_profile(path: str, profile: str | None) -> str | None:
    """Return the name of a profile of the daemon; a file is first stored there under its own name."""
    if profile is None or not ("/" in profile or profile.endswith(".toml")):
        return profile
    from halftunnel_vpn.config.client import parse_client
    from halftunnel_vpn.control.text_file import read_text

    text = read_text(Path(profile))
    name = parse_client(text, source=profile).name
    command(path, "PUT", f"/v1/profiles/{name}?replace=no", text.encode())
    return name


def _start() -> None:
    if not SYSTEMD.is_dir():
        raise HostError(
            "the daemon is not running, and there is no systemd here to start it; add --foreground, and "
            "leave it running"
        )
    try:
        done = subprocess.run(
            ["systemctl", "start", UNIT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(
            f"the daemon cannot be started ({error}); see 'systemctl status halftunnel'"
        ) from error
    if done.returncode == 0:
        return
    if f"Unit {UNIT} not found" in done.stderr:
        raise HostError(
            f"the daemon is not installed on this host; as root run {how_to_install('client')}, or add "
            "--foreground, and leave it running"
        )
    if "authentication" in done.stderr or "Access denied" in done.stderr:
        raise HostError("the daemon is not running, and only root may start it; run this as root")
    raise HostError("the daemon did not start; see 'journalctl -u halftunnel'")
