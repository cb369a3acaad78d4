"""What `server run` and `up --foreground` have in common: where they log and serve metrics."""

from __future__ import annotations

from argparse import Namespace

from halftunnel_vpn.config import net
from halftunnel_vpn.config.schema import Rejected
from halftunnel_vpn.config.shared import LogConfig
from halftunnel_vpn.errors import UsageError
from halftunnel_vpn.observe import log_format


def start_log(options: Namespace, config: LogConfig) -> None:
    """Log as the command line says, else as the configuration does."""
    log_format.configure(options.log_level or config.level, options.log_format or config.format)


def metrics_endpoint(options: Namespace) -> net.Endpoint | None:
    """What ``--metrics`` asks for. Raises UsageError."""
    if options.metrics is None:
        return None
    try:
        return net.endpoint(options.metrics)
    except Rejected as rejected:
        raise UsageError(f"--metrics {options.metrics}: must be {rejected.allowed}") from None
