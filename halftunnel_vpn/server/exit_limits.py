"""The limits of an exit, computed from its configuration and its machine."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from halftunnel_vpn.config.server import ServerConfig, ServerLimitsConfig
from halftunnel_vpn.host import resources
from halftunnel_vpn.protocol.shaping_terms import ShapingMode
from halftunnel_vpn.server.dialing import DialLimits
from halftunnel_vpn.server.fairness import CpuShare
from halftunnel_vpn.server.gate import GateLimits
from halftunnel_vpn.server.nat import NatLimits
from halftunnel_vpn.session.memory_budget import Memory

SHARE_OF_LEGS = 4
"""The legs of one client are at most 1/N of the connections of a listener."""

RESERVED_LEGS = 8
"""1/N of the connections of a listener is reserved for first legs of sessions."""

SHARE_OF_MEMORY = 2
"""All sessions together may hold 1/N of the exit's memory, unless configured."""

SHARE_OF_CLIENT = 4
"""The sessions of one client may hold 1/N of that."""


class SessionsMemory:
    """The memory budgets of all sessions of an exit, and of those of each client."""

    def __init__(self, limit: int) -> None:
        self.total = Memory(limit)
        # By the client's share of the processor: a compiled class allows no weak references to itself.
        self._of_client: WeakKeyDictionary[CpuShare, Memory] = WeakKeyDictionary()

    def of_client(self, share: CpuShare) -> Memory:
        """Return the budget of all sessions of the client with ``share``. It lasts as long as the share."""
        memory = self._of_client.get(share)
        if memory is None:
            memory = Memory(self.total.limit // SHARE_OF_CLIENT, self.total)
            self._of_client[share] = memory
        return memory

    def set_limit(self, limit: int) -> None:
        """Change the limit. Each client keeps its fraction of it."""
        self.total.limit = limit
        for memory in self._of_client.values():
            memory.limit = limit // SHARE_OF_CLIENT


def memory_limit(limits: ServerLimitsConfig) -> int:
    """Return the bytes that all sessions together may hold."""
    return limits.memory or resources.memory() // SHARE_OF_MEMORY


def nat_limits(limits: ServerLimitsConfig) -> NatLimits:
    """Return the limits of streams, bounded by the files that the process may open."""
    streams = min(limits.max_streams, resources.open_files() * 3 // 4)  # the rest is for legs
    return NatLimits(limits.udp_idle, limits.streams_per_client, streams)


def dial_limits(limits: ServerLimitsConfig) -> DialLimits:
    """Return the limits of dials to destinations."""
    return DialLimits(limits.dials_per_client, limits.max_dials, timeout=limits.dial_timeout)


_SHAPING = {"off": ShapingMode.OFF, "split": ShapingMode.SPLIT, "strong": ShapingMode.STRONG}


def gate_limits(config: ServerConfig) -> GateLimits:
    """Return the limits of new legs and sessions."""
    limits = config.limits
    return GateLimits(
        handshake_timeout=limits.handshake_timeout,
        sessions_per_client=limits.sessions_per_client,
        max_sessions=limits.max_sessions,
        max_streams=limits.streams_per_client,
        idle_timeout=limits.session_idle,
        legs_per_client=min(limits.legs_per_client, max(limits.connections // SHARE_OF_LEGS, 1)),
        shaping=_SHAPING[config.shaping.max],
        shaping_rate=config.shaping.max_rate,
        shared_legs=_shared_legs(config),
    )


def _shared_legs(config: ServerConfig) -> int:
    """Return the number of legs of one direction beyond which only first legs may join."""
    up, down = config.listen.upstream, config.listen.downstream
    connections = config.limits.connections
    if (up.address, up.port) == (down.address, down.port):
        connections //= 2  # one listener has the legs of both directions
    return connections - connections // RESERVED_LEGS
