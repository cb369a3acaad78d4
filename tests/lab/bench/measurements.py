"""What is done to fill the rows: each measurement is one visit to one peer, and yields one or more rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Final

from halftunnel_vpn.errors import HostError
from lab.bench import flows, latency, roads, traffic, usage
from lab.bench.peers import Peer
from lab.bench.rows import (
    DATAGRAM_SIZES,
    DIRECTIONS,
    ENDS,
    FLOW_COUNTS,
    LINE_LOADS,
    LINES,
    LOSSY_LINE,
    LOSSY_PERMILLE,
    MANY_FLOWS,
    ROAD_CONGESTION,
    ROAD_LOSSES,
    Line,
    line_row,
    lossy_row,
    road_row,
)
from lab.bench.summary import percentile
from lab.nameserver import Zone
from lab.topology import Lab

LOAD_LEAD: Final = 0.5
"""Seconds that a bulk flow runs before anything is measured beside it."""

SETTLE: Final = 1.0
"""Seconds of quiet before memory is looked at."""

MEGA: Final = 1_000_000
GIGA: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything.

    ``seconds`` of each run; on the long road ``road_seconds`` after ``road_warm_up`` seconds that are not
    counted, in which congestion windows grow; ``flow_counts`` for the memory rows.
    """

    seconds: float
    road_seconds: float
    road_warm_up: float
    flow_counts: tuple[int, ...] = MANY_FLOWS


@dataclass(frozen=True, slots=True)
class Measurement:
    """``run`` gives values by row; ``rows`` says which, as far as they can be had."""

    name: str
    rows: tuple[str, ...]
    run: Callable[[Peer, Scale], dict[str, float]]
    needs_tunnel: bool = False
    """Whether it says nothing where no program of a peer runs."""
    congestion: str | None = None
    """Congestion control that the hosts must have; None: the machine's, whatever that is."""
    line: Line | None = None
    """The line that both roads must be; None: the long road, where the roads are not the lab's own."""
    needs_ping: bool = False
    """Whether it says nothing of a peer that does not carry pings."""
    names: Callable[[], Zone] | None = None
    """What the target's name server has to know besides its own names."""
    prepare: Callable[[Lab], None] | None = None
    """What is called with a fresh lab after its target and roads are ready."""

    def matches(self, pattern: str) -> bool:
        """Whether its name or one of its rows is meant by ``tcp-*``."""
        return any(fnmatchcase(name, pattern) for name in (self.name, *self.rows))


def matching(measurements: Iterable[Measurement], patterns: Sequence[str]) -> list[Measurement]:
    """Those that one of the patterns means, in their order. No patterns: all."""
    return [
        measurement
        for measurement in measurements
        if not patterns or any(measurement.matches(pattern) for pattern in patterns)
    ]


def bulk(way: str, count: int, peer: Peer, scale: Scale) -> dict[str, float]:
    """TCP at full speed; with one flow, also what it costs."""
    before = [usage.cpu_seconds(processes) for processes in _processes(peer)]
    run = traffic.tcp(peer.lab, way, flows=count, seconds=scale.seconds)
    after = [usage.cpu_seconds(processes) for processes in _processes(peer)]
    values = {f"tcp-{count}-{way}": run.bits_per_second / GIGA}
    if count == 1 and peer.client_processes():
        for end, earlier, later in zip(ENDS, before, after, strict=True):
            values[f"cpu-{way}-{end}"] = (later - earlier) / (run.received_bytes / GIGA)
    return values


def datagrams(way: str, size: int, peer: Peer, scale: Scale) -> dict[str, float]:
    """UDP as fast as it can be sent, counted where it arrives."""
    rate = traffic.udp(peer.lab, way, size=size, seconds=scale.seconds)
    return {f"udp-{size}-{way}": rate / 1000}


def ping_idle(peer: Peer, scale: Scale) -> dict[str, float]:
    """Round trips with nothing else under way."""
    return _ping_rows("ping-idle", latency.pings(peer.lab, scale.seconds))


def ping_loaded(way: str, peer: Peer, scale: Scale) -> dict[str, float]:
    """Round trips beside one bulk flow."""
    # The flow must outlast the pings, however slowly they go.
    with traffic.bulk_flow(peer.lab, way, scale.seconds * 2 + 10):
        time.sleep(LOAD_LEAD)
        times = latency.pings(peer.lab, scale.seconds)
    return _ping_rows(f"ping-{way}", times)


def http(name: str, new_connections: bool, peer: Peer, scale: Scale) -> dict[str, float]:
    """Requests for a small page."""
    return {name: traffic.requests(peer.lab, seconds=scale.seconds, new_connections=new_connections)}


def start(peer: Peer, scale: Scale) -> dict[str, float]:
    """A new client for an exit that is up."""
    peer.stop_client()
    return {"start": peer.connect()}


def memory(peer: Peer, scale: Scale) -> dict[str, float]:
    """Both ends fresh: idle, and with more and more open flows."""
    peer.renew()
    time.sleep(SETTLE)
    idle = _resident(peer)
    values = {f"memory-idle-{end}": size / MEGA for end, size in zip(ENDS, idle, strict=True)}
    for count in scale.flow_counts:
        if count > flows.most_flows():
            continue
        with flows.held(peer.lab, count):
            time.sleep(SETTLE)
            sizes = _resident(peer)
        for end, size, less in zip(ENDS, sizes, idle, strict=True):
            values[f"memory-{count}-{end}"] = size / MEGA
            values[f"flow-{end}"] = max(0, size - less) / count / 1000
        peer.renew()
    return values


def long_road(row: str, loss: int, count: int, way: str, peer: Peer, scale: Scale) -> dict[str, float]:
    """TCP over the emulated road; ``loss`` is in thousandths."""
    roads.set_loss(peer.lab, loss)
    try:
        run = traffic.tcp(peer.lab, way, flows=count, seconds=scale.road_seconds, warm_up=scale.road_warm_up)
    finally:
        roads.set_loss(peer.lab, 0)
    return {row: run.bits_per_second / MEGA}


def ordinary_line(row: str, load: str, peer: Peer, scale: Scale) -> dict[str, float]:
    """Pings beside bulk on an ordinary line, and what the bulk carries meanwhile."""
    ways = DIRECTIONS if load == "both" else (load,)
    beside = traffic.beside_bulk(peer.lab, ways, scale.road_seconds, warm_up=scale.road_warm_up)
    with beside as rates:
        times = latency.pings(peer.lab, scale.road_seconds, interval=latency.LINE_PING_INTERVAL)
        return _ping_rows(row, times) | {f"{row}-rate": min(rates()) / MEGA}


def lossy_line(row: str, peer: Peer, scale: Scale) -> dict[str, float]:
    """The same with bulk both ways, where packets are lost."""
    roads.set_loss(peer.lab, LOSSY_PERMILLE)
    try:
        return ordinary_line(row, "both", peer, scale)
    finally:
        roads.set_loss(peer.lab, 0)


def _local() -> list[Measurement]:
    found = []
    for count in FLOW_COUNTS:
        for way in DIRECTIONS:
            rows = [f"tcp-{count}-{way}"]
            if count == 1:
                rows += [f"cpu-{way}-{end}" for end in ENDS]
            found.append(Measurement(f"tcp-{count}-{way}", tuple(rows), partial(bulk, way, count)))
    for size in DATAGRAM_SIZES:
        for way in DIRECTIONS:
            name = f"udp-{size}-{way}"
            found.append(Measurement(name, (name,), partial(datagrams, way, size)))
    found.append(Measurement("ping-idle", ("ping-idle", "ping-idle-p99"), ping_idle, needs_ping=True))
    for way in DIRECTIONS:
        name = f"ping-{way}"
        rows_of_way = (name, f"{name}-p99")
        found.append(Measurement(name, rows_of_way, partial(ping_loaded, way), needs_ping=True))
    found.append(Measurement("http", ("http",), partial(http, "http", False)))
    found.append(Measurement("connections", ("connections",), partial(http, "connections", True)))
    found.append(Measurement("start", ("start",), start, needs_tunnel=True))
    stages = ("memory-idle", *(f"memory-{count}" for count in MANY_FLOWS), "flow")
    rows = [f"{stage}-{end}" for stage in stages for end in ENDS]
    found.append(Measurement("memory", tuple(rows), memory, needs_tunnel=True))
    return found


def _road() -> list[Measurement]:
    return [
        Measurement(name, (name,), partial(long_road, name, loss, count, way), congestion=congestion)
        for congestion in ROAD_CONGESTION
        for loss in ROAD_LOSSES
        for count in FLOW_COUNTS
        for way in DIRECTIONS
        for name in (road_row(loss, count, way, congestion),)
    ]


def _lines() -> list[Measurement]:
    lossy = [
        Measurement(
            row,
            (row, f"{row}-p99", f"{row}-rate"),
            partial(lossy_line, row),
            needs_ping=True,
            congestion=congestion,
            line=LINES[LOSSY_LINE],
        )
        for congestion in ROAD_CONGESTION
        for row in (lossy_row(congestion),)
    ]
    return lossy + [
        Measurement(
            row,
            (row, f"{row}-p99", f"{row}-rate"),
            partial(ordinary_line, row, load),
            needs_ping=True,
            congestion=congestion,
            line=line,
        )
        for congestion in ROAD_CONGESTION
        for name, line in LINES.items()
        for load in LINE_LOADS
        for row in (line_row(name, load, congestion),)
    ]


def _processes(peer: Peer) -> tuple[list[int], list[int]]:
    return peer.client_processes(), peer.exit_processes()


def _resident(peer: Peer) -> list[int]:
    sizes = [usage.resident_bytes(processes) for processes in _processes(peer)]
    if not all(sizes):
        raise HostError(f"a program of {peer.title} is gone:\n{peer.last_words()}")
    return sizes


def _ping_rows(row: str, times: list[float]) -> dict[str, float]:
    return {row: percentile(times, 0.5), f"{row}-p99": percentile(times, 0.99)}


LOCAL: Final = tuple(_local())
"""On the lab's own links, which are as fast as the machine."""

ROAD: Final = tuple(_road())
"""On the long road."""

LINE: Final = tuple(_lines())
"""On ordinary lines, one after the other; measured only when they are asked for."""
