"""Options that `server run` and `up --foreground` share: the log and the metrics."""

from __future__ import annotations

from argparse import Namespace

from halftunnel_vpn.config import net
from halftunnel_vpn.config.schema import Rejected
from halftunnel_vpn.config.shared import LogConfig
from halftunnel_vpn.errors import UsageError
from halftunnel_vpn.observe import log_format


def start_log(options: Namespace, config: LogConfig) -> None:
    """Start the log as set on the command line, otherwise as in the configuration."""
    log_format.configure(options.log_level or config.level, options.log_format or config.format)


def metrics_endpoint(options: Namespace) -> net.Endpoint | None:
    """Return the endpoint of ``--metrics``; None without it. Raises UsageError."""
    if options.metrics is None:
        return None
    try:
        return net.endpoint(options.metrics)
    except Rejected as rejected:
        raise UsageError(f"--metrics {options.metrics}: must be {rejected.allowed}") from None
