"""`htvpn exclude -- COMMAND` and `htvpn only -- COMMAND`: run a program outside or inside the tunnel."""

from __future__ import annotations

import os
from argparse import Namespace

from halftunnel_vpn.cli import daemon_process
from halftunnel_vpn.errors import HostError, UsageError


def run(options: Namespace) -> int:
    """Add this process to the list, then execute the command. Its children stay in the list."""
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise UsageError(f"name the command: htvpn {options.command} -- COMMAND")
    daemon_process.command(options.socket, "POST", "/v1/programs", {"list": options.list})
    try:
        os.execvp(words[0], words)
    except OSError as error:
        raise HostError(f"{words[0]} cannot be run ({error.strerror})") from error
