"""The open flows of a running client, ``GET /v1/flows``: one JSON object (docs/CONTROL.md)."""

from __future__ import annotations

import os
from typing import Final, TypedDict

from halftunnel_vpn.control.peer import Peer

FLOWS_PATH: Final = "/v1/flows"

MAX_LISTED: Final = 1000
"""Flows of one answer. The others are only counted."""


class FlowStatus(TypedDict):
    """One open flow, and the process of this host that owns it."""

    kind: str
    """``tcp``, ``udp`` or ``icmp``."""
    port: int
    """The port at this host; of ICMP the identifier."""
    program: str | None
    """The name of the program, without its arguments; None if no process of this host was found."""
    pid: int | None
    user: int | None
    """The number of the user who owns the socket; None if no socket was found."""
    destination: str | None
    """Address or name, and port; None for UDP and ICMP, and for those who may not see it."""
    sent_bytes: int | None
    """Bytes that the program has sent and the tunnel has taken; None except for TCP."""
    received_bytes: int | None


class FlowList(TypedDict):
    """A complete answer."""

    flows: list[FlowStatus]
    left_out: int
    """Open flows beyond MAX_LISTED."""


def as_seen_by(peer: Peer | None, listed: FlowList) -> FlowList:
    """Return the list as ``peer`` may see it: destinations of the flows of others are for root alone."""
    if peer is not None and peer.uid in (0, os.geteuid()):
        return listed
    own = None if peer is None else peer.uid
    flows = [
        flow if own is not None and flow["user"] == own else FlowStatus({**flow, "destination": None})
        for flow in listed["flows"]
    ]
    return FlowList(flows=flows, left_out=listed["left_out"])
