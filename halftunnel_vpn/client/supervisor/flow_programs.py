"""The open flows of a tunnel with the programs that own them, found when somebody asks."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Final

from halftunnel_vpn.client.host.serial_thread import SerialThread
from halftunnel_vpn.client.supervisor.tunnel_port import TunnelPort
from halftunnel_vpn.control.flow_schema import MAX_LISTED, FlowList, FlowStatus
from halftunnel_vpn.flow.flow_ends import FlowEnds
from halftunnel_vpn.host.kernel.socket_owners import LocalEnd, Owner, SocketOwners

_PROTOCOLS: Final = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "icmp": socket.IPPROTO_ICMP}


class FlowPrograms:
    """Lists flows for the control socket. The search for their programs runs in a thread, one at a time."""

    def __init__(self, owners: SocketOwners | None = None) -> None:
        self._owners = owners or SocketOwners()
        self._in_turn = SerialThread()

    async def of(self, tunnel: TunnelPort | None) -> FlowList:
        """Return the open flows of ``tunnel``, none if it is None. Raises HostError."""
        if tunnel is None:
            return FlowList(flows=[], left_out=0)
        flows = tunnel.open_flows(MAX_LISTED)
        left_out = max(0, int(sum(tunnel.numbers().flows.values())) - len(flows))
        owners = await self._in_turn(lambda: self._owners.owners([_local_end(flow) for flow in flows]))
        return flow_list(flows, owners, left_out)


def flow_list(flows: Sequence[FlowEnds], owners: dict[LocalEnd, Owner], left_out: int) -> FlowList:
    """Combine flows with the owners of their sockets."""
    return FlowList(
        flows=[_described(flow, owners.get(_local_end(flow))) for flow in flows], left_out=left_out
    )


def _local_end(flow: FlowEnds) -> LocalEnd:
    return LocalEnd(_PROTOCOLS[flow.kind], flow.local, flow.port, flow.remote, flow.remote_port)


def _described(flow: FlowEnds, owner: Owner | None) -> FlowStatus:
    return FlowStatus(
        kind=flow.kind,
        port=flow.port,
        program=None if owner is None else owner.program,
        pid=None if owner is None else owner.pid,
        user=None if owner is None else owner.user,
        destination=_destination(flow),
        sent_bytes=None if owner is None else owner.sent,
        received_bytes=None if owner is None else owner.received,
    )


def _destination(flow: FlowEnds) -> str | None:
    if not flow.remote:
        return None
    if flow.name is not None:
        return f"{flow.name}:{flow.remote_port}"
    address = ipaddress.ip_address(flow.remote)
    return f"{address}:{flow.remote_port}" if address.version == 4 else f"[{address}]:{flow.remote_port}"
