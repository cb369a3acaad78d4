"""`htvpn server run`: run the exit in the foreground."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from halftunnel_vpn.cli import environment, process_options, server_directory
from halftunnel_vpn.errors import ConfigError, UsageError


def run(options: Namespace) -> int:
    """Run until SIGINT or SIGTERM. SIGHUP reads all files again."""
    metrics = process_options.metrics_endpoint(options)
    directory = Path(options.dir)
    _make_if_told(directory)
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


def _make_if_told(directory: Path) -> None:
    """Make a new exit at the first start, where the environment says which. Raises ConfigError."""
    if (directory / server_directory.CONFIGURATION).exists():
        return
    init = environment.init_options()
    if init is None:
        return
    from halftunnel_vpn.cli import server_init

    try:
        server_init.run(Namespace(dir=str(directory), **init))
    except UsageError as error:
        raise ConfigError(f"{environment.INIT}*: {error}") from None
