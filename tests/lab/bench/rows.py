"""The rows of the table: what is measured, in which unit, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Better = Literal["higher", "lower"]

ROAD_DELAY: Final = 0.050
"""Seconds of round trip on the emulated road."""

ROAD_RATE: Final = 200_000_000
"""Bits a second of the emulated road, each direction."""

ROAD_LOSSES: Final = (0, 10)
"""Packets lost of a thousand, each direction."""

ROAD_CONGESTION: Final = ("cubic", "bbr")
"""Congestion controls of all hosts on the long road: what Linux and its distributions ship, and the one that
loss harms least."""


@dataclass(frozen=True, slots=True)
class Line:
    """A path: seconds there and back, bits a second each way, bytes that may wait at the narrow place."""

    delay: float
    rate: int
    queue: int


LONG_ROAD: Final = Line(ROAD_DELAY, ROAD_RATE, int(ROAD_RATE / 8 * ROAD_DELAY))
"""With a queue of one bandwidth-delay product."""

LINE_RATES: Final = (2, 10, 40, 200)
LINE_DELAYS: Final = (20, 60)
LINE_QUEUES: Final = (20, 200)
"""Mbit/s, milliseconds there and back, and milliseconds of queue of ordinary lines."""

LINE_LOADS: Final = ("down", "up", "both")
"""Ways of the bulk flows beside which pings are timed."""

LINES: Final = {
    f"{rate}-{delay}-{queue}": Line(delay / 1e3, rate * 1_000_000, max(rate * 125 * queue, 3028))
    for rate in LINE_RATES
    for delay in LINE_DELAYS
    for queue in LINE_QUEUES
}
"""By their names in rows; two packets at least can wait."""

LOSSY_LINE: Final = "40-20-20"
"""The line on which packets are lost as well,"""

LOSSY_PERMILLE: Final = 5
"""and how many of a thousand, each direction."""

EVERYDAY_LINE: Final = Line(0.050, 100_000_000, 625_000)
"""Where pages, names and calls are timed: 50 ms, 100 Mbit/s, a queue of one bandwidth-delay product."""

EVERYDAY_LOSSES: Final = (0, 10)
"""Packets lost of a thousand there, each direction."""

FLOW_COUNTS: Final = (1, 8)
"""TCP flows at once."""

DATAGRAM_SIZES: Final = (64, 1200)
"""Bytes of UDP payload."""

MANY_FLOWS: Final = (1_000, 10_000)
"""Open TCP connections for the memory rows, few first."""

DIRECTIONS: Final = ("up", "down")
ENDS: Final = ("client", "exit")


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``digits`` is how many significant digits are worth printing."""

    id: str
    title: str
    unit: str
    better: Better
    digits: int = 3


def _local_rows() -> list[Row]:
    rows = [
        Row(f"tcp-{count}-{way}", f"TCP, {_flows(count)}, {way}", "Gbit/s", "higher")
        for count in FLOW_COUNTS
        for way in DIRECTIONS
    ]
    rows += [
        Row(f"udp-{size}-{way}", f"UDP, {size} B, {way}, packets that arrive", "1000/s", "higher")
        for size in DATAGRAM_SIZES
        for way in DIRECTIONS
    ]
    for load, title in (("idle", "idle"), ("up", "under 1 flow up"), ("down", "under 1 flow down")):
        rows.append(Row(f"ping-{load}", f"ping {title}, median", "ms", "lower"))
        rows.append(Row(f"ping-{load}-p99", f"ping {title}, 99th percentile", "ms", "lower"))
    rows.append(Row("http", "HTTP, 64 kept-alive connections, 1 kB", "requests/s", "higher"))
    rows.append(Row("connections", "HTTP, a new connection each", "connections/s", "higher"))
    rows += [
        Row(f"cpu-{way}-{end}", f"CPU of the {end}, TCP {way}", "s/GB", "lower")
        for way in DIRECTIONS
        for end in ENDS
    ]
    rows += [Row(f"memory-idle-{end}", f"memory of the {end}, idle", "MB", "lower") for end in ENDS]
    rows += [
        Row(f"memory-{count}-{end}", f"memory of the {end}, {count:,} open flows", "MB", "lower")
        for count in MANY_FLOWS
        for end in ENDS
    ]
    rows += [Row(f"flow-{end}", f"memory of the {end} for each open flow", "kB", "lower") for end in ENDS]
    rows.append(Row("start", "from the client's start to the first byte", "s", "lower"))
    return rows


def _road_rows() -> list[Row]:
    name = f"{ROAD_DELAY * 1000:.0f} ms, {ROAD_RATE / 1e6:.0f} Mbit/s"
    return [
        Row(
            road_row(loss, count, way, congestion),
            f"{name}, {loss / 10:g} % loss, {congestion}: TCP, {_flows(count)}, {way}",
            "Mbit/s",
            "higher",
        )
        for congestion in ROAD_CONGESTION
        for loss in ROAD_LOSSES
        for count in FLOW_COUNTS
        for way in DIRECTIONS
    ]


def _line_rows() -> list[Row]:
    rows = []
    for congestion in ROAD_CONGESTION:
        losing = f"{LOSSY_PERMILLE / 10:g} % loss"
        rows += _beside_bulk(lossy_row(congestion), LOSSY_LINE, f"{losing}, {congestion}, bulk both")
        for name in LINES:
            for load in LINE_LOADS:
                rows += _beside_bulk(line_row(name, load, congestion), name, f"{congestion}, bulk {load}")
    return rows


def _beside_bulk(row: str, name: str, how: str) -> list[Row]:
    rate, delay, queue = name.split("-")
    beside = f"line of {rate} Mbit/s, {delay} ms, queue {queue} ms, {how}"
    return [
        Row(row, f"{beside}: ping, median", "ms", "lower"),
        Row(f"{row}-p99", f"{beside}: ping, 99th percentile", "ms", "lower"),
        Row(f"{row}-rate", f"{beside}: bulk of the slower way", "Mbit/s", "higher"),
    ]


def _everyday_rows() -> list[Row]:
    rows = []
    for loss in EVERYDAY_LOSSES:
        title = f"page of 60 resources from six names, {loss / 10:g} % loss"
        rows.append(Row(page_row(loss, "new"), f"{title}, all of it new", "s", "lower"))
        rows.append(Row(page_row(loss, "again"), f"{title}, again in a fresh profile", "s", "lower"))
    rows += [
        Row("first-byte-new", "first byte of a connection, destination new", "ms", "lower"),
        Row("first-byte-again", "first byte of a connection, destination known", "ms", "lower"),
        Row("dns-new", "DNS name, new", "ms", "lower"),
        Row("dns-again", "DNS name, asked for a moment ago", "ms", "lower"),
        Row("clone", "git clone of 5,000 objects", "s", "lower"),
    ]
    for way in DIRECTIONS:
        title = f"video call beside an upload, {way}"
        rows.append(Row(f"call-{way}-loss", f"{title}: datagrams lost", "%", "lower"))
        rows.append(Row(f"call-{way}-p99", f"{title}: delay of one way, 99th percentile", "ms", "lower"))
    return rows


def page_row(loss: int, which: str) -> str:
    """The id of a row of pages, ``new`` or ``again``; ``loss`` is in thousandths."""
    return f"page-{loss / 10:g}-{which}"


def line_row(name: str, load: str, congestion: str) -> str:
    """The id of the first row of an ordinary line, named as in LINES."""
    return f"line-{name}-{load}-{congestion}"


def lossy_row(congestion: str) -> str:
    """The id of the first row of the line that loses."""
    return f"line-lossy-{congestion}"


def road_row(loss: int, count: int, way: str, congestion: str) -> str:
    """The id of a row of the long road; ``loss`` is in thousandths."""
    return f"road-{loss / 10:g}-{count}-{way}-{congestion}"


def _flows(count: int) -> str:
    return "1 flow" if count == 1 else f"{count} flows"


LOCAL_ROWS: Final = tuple(_local_rows())
ROAD_ROWS: Final = tuple(_road_rows())
LINE_ROWS: Final = tuple(_line_rows())
EVERYDAY_ROWS: Final = tuple(_everyday_rows())
ROWS: Final = LOCAL_ROWS + EVERYDAY_ROWS + ROAD_ROWS + LINE_ROWS
BY_ID: Final = {row.id: row for row in ROWS}
