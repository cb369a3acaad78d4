"""Tables that the profile and the server's configuration have in common."""

from __future__ import annotations

from typing import Literal

from halftunnel_vpn.config import values
from halftunnel_vpn.config.schema import config_table, option

DEFAULT_NICE = -3
"""Nice value of the process that carries the traffic: before ordinary programs, which have 0, but not so far
before them that who reads a flood of datagrams gets no turn."""

MIN_NICE, MAX_NICE = -20, 19

SYSTEM_CONGESTION = "system"
"""In place of the name of a congestion control: whatever the system's is."""

DEFAULT_CONGESTION = "bbr"
"""Congestion control of legs, where the kernel has it and allows it."""

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


@config_table
class LogConfig:
    """``[log]``: what is written to standard error. Names, addresses and keys appear at ``debug`` alone."""

    level: LogLevel = option(values.one_of("debug", "info", "warning", "error"), default="info")
    format: LogFormat = option(values.one_of("text", "json"), default="text")
