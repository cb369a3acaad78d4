"""Rates from successive snapshots, and flows by program: what `htvpn top` computes, without a terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from halftunnel_vpn.cli.status_text import DIRECTIONS

MAX_HISTORY: Final = 120
"""Rates that are kept for the sparklines, one a second."""

_BARS: Final = "▁▂▃▄▅▆▇█"


class Speed(NamedTuple):
    """Bytes a second, from this host and to it."""

    up: float
    down: float


SILENT: Final = Speed(0.0, 0.0)


class StatusRates:
    """Rates of the whole tunnel and of each leg."""

    def __init__(self) -> None:
        # The latest rates of the whole, oldest first.
        self.history: deque[Speed] = deque(maxlen=MAX_HISTORY)
        self.legs: dict[tuple[str, int], Speed] = {}
        self._at: float | None = None
        self._process: object = None
        self._bytes: dict[tuple[str, int], tuple[int, int]] = {}

    @property
    def total(self) -> Speed:
        """The present rate of the whole."""
        return self.history[-1] if self.history else SILENT

    def forget(self) -> None:
        """Start again: what is counted next is compared with nothing."""
        self._at = None
        self.legs = {}
        self._bytes = {}

    def add(self, status: Mapping[str, Any], now: float) -> None:
        """Take a status of the monotonic time ``now``."""
        process = (status.get("pid"), status.get("session"))
        counted: dict[tuple[str, int], tuple[int, int]] = {}
        for direction in DIRECTIONS:
            road = status.get(direction)
            if isinstance(road, Mapping):
                counted[direction, -1] = road.get("sent_bytes", 0), road.get("received_bytes", 0)
                for leg in road.get("open_legs", ()):
                    counted[direction, leg["number"]] = leg["sent_bytes"], leg["received_bytes"]
        if self._at is None or now <= self._at:
            self.legs = {}
        else:
            speeds = _speeds(self._bytes, counted, now - self._at, same=process == self._process)
            whole = [speed for (_, number), speed in speeds.items() if number < 0]
            self.history.append(Speed(sum(s.up for s in whole), sum(s.down for s in whole)))
            self.legs = {key: speed for key, speed in speeds.items() if key[1] >= 0}
        self._at, self._process, self._bytes = now, process, counted


def _speeds(
    before: Mapping[tuple[str, int], tuple[int, int]],
    after: Mapping[tuple[str, int], tuple[int, int]],
    seconds: float,
    *,
    same: bool,
) -> dict[tuple[str, int], Speed]:
    """Return the rates. Counters that have started again (another process, another session) give none."""
    found = {}
    for key, (sent, received) in after.items():
        sent_before, received_before = before.get(key, (0, 0) if same and key[1] >= 0 else (sent, received))
        if sent < sent_before or received < received_before:
            sent_before, received_before = sent, received
        found[key] = Speed((sent - sent_before) / seconds, (received - received_before) / seconds)
    return found


class Program(NamedTuple):
    """One process, with its open flows."""

    name: str
    pid: int | None
    tcp: int
    udp: int
    icmp: int
    speed: Speed
    """Of its TCP flows."""
    destinations: tuple[str, ...]
    """Different ones, in the order of their flows."""

    @property
    def flows(self) -> int:
        """The number of its flows."""
        return self.tcp + self.udp + self.icmp


UNKNOWN: Final = "(unknown)"
"""Whose process was not found."""

SORTS: Final = ("rate", "flows", "name")
"""The orders in which programs are listed."""

FlowKey = tuple[object, ...]


class FlowRates:
    """Programs with their rates, from successive lists of flows."""

    def __init__(self) -> None:
        self.programs: list[Program] = []
        self.left_out = 0
        self._at: float | None = None
        self._bytes: dict[FlowKey, tuple[int, int]] = {}

    def forget(self) -> None:
        """Start again."""
        self.programs, self.left_out, self._at, self._bytes = [], 0, None, {}

    def add(self, listed: Mapping[str, Any], now: float) -> None:
        """Take an answer of ``GET /v1/flows`` of the monotonic time ``now``."""
        seconds = None if self._at is None or now <= self._at else now - self._at
        self.left_out = int(listed.get("left_out", 0))
        groups: dict[tuple[str, int | None], list[Mapping[str, Any]]] = {}
        for flow in listed.get("flows", ()):
            groups.setdefault((flow.get("program") or UNKNOWN, flow.get("pid")), []).append(flow)
        counted: dict[FlowKey, tuple[int, int]] = {}
        self.programs = []
        for (name, pid), flows in groups.items():
            speed = self._speed(flows, seconds, counted)
            kinds = [flow.get("kind") for flow in flows]
            named = dict.fromkeys(str(flow["destination"]) for flow in flows if flow.get("destination"))
            self.programs.append(
                Program(
                    name,
                    pid,
                    kinds.count("tcp"),
                    kinds.count("udp"),
                    kinds.count("icmp"),
                    speed,
                    tuple(named),
                )
            )
        self._at, self._bytes = now, counted

    def _speed(
        self,
        flows: Iterable[Mapping[str, Any]],
        seconds: float | None,
        counted: dict[FlowKey, tuple[int, int]],
    ) -> Speed:
        up = down = 0
        for flow in flows:
            if flow.get("sent_bytes") is None or flow.get("received_bytes") is None:
                continue
            key = flow.get("kind"), flow.get("port"), flow.get("pid"), flow.get("destination")
            sent, received = counted[key] = flow["sent_bytes"], flow["received_bytes"]
            sent_before, received_before = self._bytes.get(key, (0, 0))
            up += max(0, sent - sent_before)
            down += max(0, received - received_before)
        return SILENT if seconds is None else Speed(up / seconds, down / seconds)

    def in_order(self, order: str) -> list[Program]:
        """Return the programs by ``rate`` or number of ``flows``, the greatest first, or by ``name``."""
        if order == "name":
            return sorted(self.programs, key=lambda each: (each.name, each.pid or 0))
        if order == "flows":
            return sorted(self.programs, key=lambda each: (-each.flows, each.name, each.pid or 0))
        return sorted(
            self.programs, key=lambda each: (-sum(each.speed), -each.flows, each.name, each.pid or 0)
        )


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last ``width`` values as bars; the highest of them has the full height."""
    shown = list(values)[-width:] if width > 0 else []
    highest = max(shown, default=0.0)
    if highest <= 0:
        return _BARS[0] * len(shown)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / highest * len(_BARS)))] for value in shown)
