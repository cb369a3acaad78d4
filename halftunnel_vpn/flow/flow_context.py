"""What all flows of one tracker share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.flow.interfaces import DnsPort, FrameWriter, OpenRun
from halftunnel_vpn.inet.special_purpose import SourceFilter
from halftunnel_vpn.timers import Wheel


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowContext:
    """The world around the flows of one tracker, and what they share."""

    write: FrameWriter
    """Writes frames to the TUN device."""
    segments: bool
    """Whether the TUN device accepts several UDP datagrams in one frame."""
    dns: DnsPort
    wheel: Wheel
    counters: Counters
    clock: Callable[[], float]
    """Returns the monotonic time in seconds."""
    random: Callable[[int], bytes]
    """Returns as many random bytes as it is called with."""
    give_way: Callable[[], None] = lambda: None
    """Called after several datagrams were written: a socket has room for about a hundred, so its reader
    needs a turn."""
    open_runs: list[OpenRun] = field(default_factory=list)
    """Flows whose datagrams are sent at the end of the batch of frames."""
    sources: SourceFilter = field(default_factory=SourceFilter)
    """The addresses from which datagrams may come."""
