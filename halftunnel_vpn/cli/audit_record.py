"""`htvpn audit record`: have the daemon write down every record on the paths for a while."""

from __future__ import annotations

import contextlib
import shlex
import time
from argparse import Namespace
from pathlib import Path
from typing import Final

from halftunnel_vpn.cli import daemon_process
from halftunnel_vpn.cli.status_text import duration
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.storage.atomic_file import create_file

ENDING: Final = 0.5
"""Seconds beyond its time in which the daemon has closed the log."""


def run(options: Namespace) -> int:
    """Begin a recording; with ``--output``, wait for its end and take the log. Raises HostError."""
    output = None if options.output is None else Path(options.output)
    if output is not None and output.exists():
        raise HostError(f"{output} exists already and is not replaced; name another file")
    content = {"seconds": options.length}
    log = Path(daemon_process.command(options.socket, "POST", "/v1/audit", content)["file"])
    if output is None:
        print(f"recording for {duration(options.length)}; then: htvpn audit {shlex.quote(str(log))}")
        return 0
    time.sleep(options.length + ENDING)
    try:
        text = log.read_text()
        create_file(output, text)
    except FileExistsError:
        raise HostError(f"{output} exists already and is not replaced; the log is {log}") from None
    except OSError as error:
        raise HostError(f"{error.filename or output}: {error.strerror}; the log is {log}") from error
    with contextlib.suppress(OSError):
        log.unlink()
    print(f"recorded {text.count(chr(10)) - 1} records; now: htvpn audit {shlex.quote(str(output))}")
    return 0
