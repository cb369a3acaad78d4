"""`htvpn server web`: log in to the web page of a running exit."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, Final

from halftunnel_vpn.cli import server_directory
from halftunnel_vpn.cli.server_control import DONE, NOT_RUNNING, ask_exit
from halftunnel_vpn.control.web.login_route import WEB_LOGIN_PATH
from halftunnel_vpn.errors import UsageError

LOOPBACK: Final = "127.0.0.1"

DEFAULT_PORT: Final = 8750
"""The port on the operator's machine for a page on a Unix socket."""


def run(options: Namespace) -> int:
    """Print the address of the page with a new token, and how to reach it from another machine."""
    if options.port is not None and not 1 <= options.port <= 65535:
        raise UsageError(f"--port {options.port}: must be from 1 to 65535")
    directory = Path(options.dir)
    answer = ask_exit(server_directory.load(directory), directory, "POST", WEB_LOGIN_PATH)
    if answer is None:
        print("not running: no exit of this directory answers")
        return NOT_RUNNING
    host, port, target = _way(answer, options.port)
    # In the fragment, which a browser sends to nobody.
    print(f"http://{host}:{port}/#token={answer['token']}")
    minutes = answer["seconds"] / 60
    print(
        f"It logs in one browser, within {minutes:.0f} minutes. On another machine, run this there first, "
        f"with the exit's name:\n  ssh -N -L {port}:{target} EXIT",
        file=sys.stderr,
    )
    return DONE


def _way(answer: dict[str, Any], wanted: int | None) -> tuple[str, int, str]:
    """Return host and port of the address, and where `ssh -L` leads.

    The host is an address: what listens at another address of "localhost" may be a program of another user.
    """
    if answer["socket"] is not None:
        return LOOPBACK, wanted or DEFAULT_PORT, shlex.quote(answer["socket"])
    host = f"[{answer['host']}]" if ":" in answer["host"] else answer["host"]
    target = f"{host}:{answer['port']}"
    return (host, answer["port"], target) if wanted is None else (LOOPBACK, wanted, target)
