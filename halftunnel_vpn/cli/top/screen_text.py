"""The text of the screen of `htvpn top`, for any width. It says everything in words, nothing by colour."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from halftunnel_vpn.cli.status_text import DIRECTIONS, duration, in_units, printable, volume
from halftunnel_vpn.cli.top.rates import SILENT, Program, StatusRates, sparkline

_SPARK_WIDTH: Final = 40

HELP: Final = """\
q  quit                    p  pause and go on
s  sort programs           r  reopen every connection
u  connect (asks first)    d  disconnect (asks first)
h  this help               tab, arrows  choose and scroll a part

UP is what this host sends, DOWN what it receives. Totals and legs count
WebSocket payload; programs count their TCP data. CIRCUIT: closed = works,
open = failed and is tried again after a pause, half-open = being tried.

Destinations are shown to root, and to others for their own programs."""


def header(status: Mapping[str, Any], rates: StatusRates, width: int, *, paused: bool) -> list[str]:
    """Return the lines above the tables: state, failure, notices, totals, shaping."""
    first = [str(status.get("state", "unknown")).upper() + (" (paused)" if paused else "")]
    first += [str(status[key]) for key in ("profile", "device") if status.get(key)]
    if "since" in status:
        first.append(f"for {duration(max(0.0, time.time() - status['since']))}")
    if status.get("round_trip") is not None:
        first.append(_milliseconds(status["round_trip"]))
    flows = status.get("flows") or {}
    first.append(" ".join(f"{count} {kind}" for kind, count in flows.items()))
    found = [", ".join(filter(None, first))]
    problems = [str(status["sentence"])] if status.get("sentence") else []
    found += [f"! {text}" for text in [*problems, *map(str, status.get("notices") or ())][:2]]
    lost = [direction for direction in DIRECTIONS if direction in status.get("lost", ())]
    if lost and "upstream" in status:
        found.append(f"! no leg {' and '.join(lost)}")
    history = list(rates.history)
    for label, now, values in (
        ("up", rates.total.up, [speed.up for speed in history]),
        ("down", rates.total.down, [speed.down for speed in history]),
    ):
        found.append(
            f"{label:<5}{volume(now) + '/s':>12}  {sparkline(values, min(_SPARK_WIDTH, width - 20))}"
        )
    shaping = _shaping(status)
    if shaping:
        found.append(shaping)
    return [fitted(line, width) for line in found]


def _shaping(status: Mapping[str, Any]) -> str | None:
    shaping = status.get("shaping")
    if not isinstance(shaping, Mapping) or "off" in (shaping.get("wanted"), shaping.get("mode")):
        wanted = shaping.get("wanted", "off") if isinstance(shaping, Mapping) else "off"
        return None if wanted == "off" else f"shaping {wanted} wanted, not active"
    overhead = f"overhead {100 * shaping.get('overhead', 0.0):.0f} %"
    return f"shaping {shaping.get('mode')}, {shaping.get('state')}, {overhead}"


def paths(status: Mapping[str, Any], rates: StatusRates, width: int) -> list[str]:
    """Return the table of paths: a line for each open leg, and for each URL without one."""
    name_width = max(12, width - 45)
    found = [f"{'PATH':<5}{'DOMAIN':<{name_width}}{'RTT':>9}{'UP/s':>8}{'DOWN/s':>8} {'AGE':<5}CIRCUIT"]
    for direction in DIRECTIONS:
        road = status.get(direction)
        if not isinstance(road, Mapping):
            continue
        label = "up" if direction == "upstream" else "down"
        domains = [str(url).partition("://")[2] for url in road.get("urls", ())]
        circuits = dict(zip(domains, map(str, road.get("circuits", ())), strict=False))
        legs = road.get("open_legs", ())
        for leg in legs:
            speed = rates.legs.get((direction, leg["number"]), SILENT)
            trip = "" if leg.get("round_trip") is None else _milliseconds(leg["round_trip"])
            found.append(
                f"{label:<5}{fitted(str(leg['domain']), name_width - 1):<{name_width}}{trip:>9}"
                f"{compact(speed.up):>8}{compact(speed.down):>8} "
                f"{_age(leg.get('age', 0)):<5}{circuits.get(leg['domain'], '')}"
            )
        for domain in domains:
            if domain not in [leg["domain"] for leg in legs]:
                text = f"{label:<5}{fitted(domain, name_width - 1):<{name_width}}{'no leg':>9}"
                found.append(f"{text}{'':<22}{circuits.get(domain, '')}")
    return [fitted(line, width) for line in found]


def programs(listed: Sequence[Program], left_out: int, width: int, *, order: str) -> list[str]:
    """Return the table of flows by program."""
    name_width = 16 if width >= 70 else 12
    title = (
        f"{'PROGRAM':<{name_width}}{'PID':>7}{'FLOWS':>6}{'UP/s':>8}{'DOWN/s':>8}  DESTINATIONS (by {order})"
    )
    found = [title]
    for each in listed:
        pid = "" if each.pid is None else each.pid
        found.append(
            f"{fitted(each.name, name_width - 1):<{name_width}}{pid:>7}{each.flows:>6}"
            f"{compact(each.speed.up):>8}{compact(each.speed.down):>8}  {_kinds(each)}"
        )
    if not listed:
        found.append("no flows")
    if left_out:
        found.append(f"and {left_out} more flows")
    return [fitted(line, width) for line in found]


def _kinds(program: Program) -> str:
    others = [f"{count} {kind}" for kind, count in (("udp", program.udp), ("icmp", program.icmp)) if count]
    if len(program.destinations) > 3:
        return ", ".join([*others, *program.destinations[:3], f"and {len(program.destinations) - 3} more"])
    return ", ".join([*others, *program.destinations])


def log_lines(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the text of log lines: ``12:00:00 INFO client: the tunnel is up session=1``, in local time."""
    for line in lines:
        where = str(line["logger"]).removeprefix("halftunnel_vpn.").rpartition(".")[2]
        fields = "".join(f" {name}={value}" for name, value in line["fields"].items())
        moment = time.strftime("%H:%M:%S", time.localtime(line["time"]))
        yield printable(f"{moment} {str(line['level']).upper()} {where}: {line['message']}{fields}")


def compact(count: float) -> str:
    """Format bytes in at most six columns: ``1.5M``."""
    return in_units(count, 1024, ("", "K", "M", "G", "T"))


def fitted(text: str, width: int) -> str:
    """Return ``text`` without control characters, cut to ``width`` columns."""
    text = printable(text)
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def _age(seconds: float) -> str:
    whole = int(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
