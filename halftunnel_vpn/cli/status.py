"""`htvpn status`: how the running client is doing."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from halftunnel_vpn.control import client

CONNECTED_STATES = ("connected", "reconnecting")
"""States in which flows are alive; in every other one the exit code is 3."""

DISCONNECTED = {"state": "disconnected"}


def run(options: Namespace) -> int:
    """Print the status; exit code 3 when not connected."""
    status = client.read_status(options.socket) or DISCONNECTED
    if options.json:
        print(json.dumps(status))
    else:
        print("\n".join(_lines(status)))
    return 0 if status.get("state") in CONNECTED_STATES else 3


def _lines(status: Mapping[str, Any]) -> Iterator[str]:
    """A status for people; what the client does not tell is left out."""
    first = str(status.get("state", "unknown"))
    if "uptime" in status:
        first += f", up {duration(status['uptime'])}"
    for key in ("profile", "device"):
        if key in status:
            first += f", {key} {status[key]}"
    yield _line("state", first)
    for direction in ("upstream", "downstream"):
        road = status.get(direction)
        if isinstance(road, Mapping):
            # The path of a URL is a secret; the host is enough to recognise the road.
            hosts = ", ".join(urlsplit(str(url)).netloc for url in road.get("urls", ()))
            legs = road.get("legs", 0)
            yield _line(
                direction,
                f"{legs} {'leg' if legs == 1 else 'legs'}, sent {volume(road.get('sent_bytes', 0))}, "
                f"received {volume(road.get('received_bytes', 0))}, {hosts}",
            )
    if status.get("round_trip") is not None:
        yield _line("round trip", f"{status['round_trip'] * 1000:.1f} ms")
    if isinstance(status.get("flows"), Mapping):
        yield _line(
            "flows", ", ".join(f"{count} {kind}" for kind, count in status["flows"].items()) or "none"
        )
    dropped = status.get("dropped")
    if isinstance(dropped, Mapping) and dropped:
        most = sorted(dropped.items(), key=lambda item: -item[1])[:5]
        reasons = ", ".join(f"{reason} {count}" for reason, count in most)
        yield _line("dropped", f"{sum(dropped.values())} ({reasons})")


def _line(name: str, text: str) -> str:
    return f"{name:<11} {text}"


def volume(count: float) -> str:
    """Bytes for people: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """A length of time for people: ``2 h 5 min``."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
