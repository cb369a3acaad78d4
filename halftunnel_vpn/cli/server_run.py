"""`htvpn server run`: the exit, in the foreground."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from halftunnel_vpn.cli import process_options, server_directory


def run(options: Namespace) -> int:
    """Run until SIGINT or SIGTERM; SIGHUP reads everything again."""
    metrics = process_options.metrics_endpoint(options)
    directory = Path(options.dir)
    config = server_directory.load(directory)
    process_options.start_log(options, config.log)
    from halftunnel_vpn.server.main import run_server

    return run_server(
        directory,
        config,
        load=lambda: server_directory.load(directory),
        reloaded=lambda new: process_options.start_log(options, new.log),
        metrics=metrics or config.metrics.listen,
    )
