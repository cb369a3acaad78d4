"""Tables that the profile and the server's configuration share."""

from __future__ import annotations

from typing import Literal

from halftunnel_vpn.config import net, values
from halftunnel_vpn.config.schema import config_table, option

DEFAULT_NICE = -3
"""Nice value of the process that carries the traffic. It comes before ordinary programs, which have 0, but
not so far that a program which reads a flood of datagrams gets no turn."""

MIN_NICE, MAX_NICE = -20, 19

SYSTEM_CONGESTION = "system"
"""Used in place of the name of a congestion control: the kernel's default."""

DEFAULT_CONGESTION = "bbr"
"""Congestion control of legs, if the kernel has it and permits it."""

DEFAULT_SAMPLE = 0.01
"""The part of all streams that is traced."""

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


@config_table
class LogConfig:
    """``[log]``: what is written to standard error. Names, addresses and keys only appear at ``debug``."""

    level: LogLevel = option(values.one_of("debug", "info", "warning", "error"), default="info")
    format: LogFormat = option(values.one_of("text", "json"), default="text")


@config_table
class TelemetryConfig:
    """``[telemetry]``: spans and metrics for OpenTelemetry. ``OTEL_*`` variables come first."""

    enabled: bool = option(values.boolean, default=False)
    endpoint: str | None = option(values.optional(net.collector_url), default=None)
    sample: float = option(values.fraction, default=DEFAULT_SAMPLE)
