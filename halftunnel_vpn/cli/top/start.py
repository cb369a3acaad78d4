"""The start of `htvpn top`: everything that can be refused is refused before the screen is taken."""

from __future__ import annotations

import os
import sys
from argparse import Namespace

from halftunnel_vpn.control import requests
from halftunnel_vpn.errors import MissingExtra, UsageError


def run(options: Namespace) -> int:
    """Show the client until the user quits. Raises HostError, UsageError."""
    # textual reads standard input and draws on standard error.
    has_terminal = all(
        stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)
    )
    if not has_terminal or os.environ.get("TERM") == "dumb":
        raise UsageError("top needs a terminal; 'htvpn status --watch' works without one")
    try:
        import textual  # noqa: F401
    except ImportError:
        raise MissingExtra("top needs textual, which is not installed", "tui") from None
    requests.read_status(options.socket)  # raises for those who may not ask
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)  # they would count more than the size of the terminal, which changes
    from halftunnel_vpn.cli.top.app import TopApp

    return TopApp(options.socket).run() or 0
