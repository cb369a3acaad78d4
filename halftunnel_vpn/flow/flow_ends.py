"""The ends of an open flow, for those who list flows."""

from __future__ import annotations

from typing import NamedTuple


class FlowEnds(NamedTuple):
    """One open flow of this host. Addresses have 4 or 16 bytes."""

    kind: str
    """``tcp``, ``udp`` or ``icmp``."""
    local: bytes
    """The address of this host."""
    port: int
    """The port of this host; of ICMP the identifier."""
    remote: bytes = b""
    """The destination; empty for UDP and ICMP, whose flows have many."""
    remote_port: int = 0
    name: str | None = None
    """The name that a fake destination address stands for."""
