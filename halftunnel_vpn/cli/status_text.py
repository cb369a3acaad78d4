"""Format a status for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

DIRECTIONS = ("upstream", "downstream")

MOST_DROPPED = 5
"""Reasons of drops that are shown, the most frequent ones."""


def lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a status. Unknown values are left out."""
    first = str(status.get("state", "unknown"))
    if "uptime" in status:
        first += f", up {duration(status['uptime'])}"
    for key in ("profile", "device"):
        if status.get(key):
            first += f", {key} {status[key]}"
    yield _line("state", first)
    if status.get("sentence"):
        yield _line("failed", printable(str(status["sentence"])))
    for notice in status.get("notices", ()):
        yield _line("note", printable(str(notice)))
    for left in status.get("leftovers", ()):
        yield _line("leftover", str(left))
    yield from _exits(status)
    yield from _roads(status)
    if status.get("round_trip") is not None:
        yield _line("round trip", _milliseconds(status["round_trip"]))
    if isinstance(status.get("flows"), Mapping) and status["flows"]:
        yield _line("flows", ", ".join(f"{count} {kind}" for kind, count in status["flows"].items()))
    yield from _names_and_protection(status)
    yield from _shaping(status)
    dropped = status.get("dropped")
    if isinstance(dropped, Mapping) and dropped:
        most = sorted(dropped.items(), key=lambda item: -item[1])[:MOST_DROPPED]
        reasons = ", ".join(f"{reason} {count}" for reason, count in most)
        yield _line("dropped", f"{sum(dropped.values())} ({reasons})")


def after_up(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield what somebody wants to know who has just connected: exit, names, kill switch."""
    ends = []
    for direction in DIRECTIONS:
        legs = (status.get(direction) or {}).get("open_legs", ())
        ends += [f"{leg['domain']}{_address(leg)} {direction}" for leg in legs[:1] if leg.get("domain")]
    if ends:
        yield _line("exit", ", ".join(ends))
    dns = status.get("dns")
    if isinstance(dns, Mapping):
        backend = f", this host's resolver set by {dns['backend']}" if dns.get("backend") else ""
        through = "left alone" if dns.get("mode") == "off" else f"through the tunnel ({dns.get('mode')})"
        yield _line("dns", through + backend)
    protection = status.get("protection")
    if isinstance(protection, Mapping):
        wanted = protection.get("kill_switch")
        holds = "" if wanted == "off" else ", active" if protection.get("active") else ", not active"
        advice = ' (kill_switch = "on" in [protection] of the profile turns it on)' if wanted == "off" else ""
        yield _line("kill switch", f"{wanted}{holds}{advice}")


def _address(leg: Mapping[str, Any]) -> str:
    return f" ({leg['address']})" if leg.get("address") else ""


def _exits(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each exit of a profile that has several."""
    found = status.get("exits", ())
    if len(found) < 2:
        return
    name = "exits"
    for each in found:
        measured = each.get("round_trip")
        round_trip = "" if measured is None else f", {_milliseconds(measured)}"
        why = f": {printable(str(each['sentence']))}" if each.get("sentence") else ""
        yield _line(name, f"{each.get('name')}, {each.get('state')}{round_trip}{why}")
        name = ""


def _roads(status: Mapping[str, Any]) -> Iterator[str]:
    for direction in DIRECTIONS:
        road = status.get(direction)
        if not isinstance(road, Mapping):
            continue
        # The path of a URL is a secret. The host identifies the direction.
        hosts = ", ".join(urlsplit(str(url)).netloc for url in road.get("urls", ()))
        legs = road.get("legs", 0)
        yield _line(
            direction,
            f"{legs} {'leg' if legs == 1 else 'legs'}, sent {volume(road.get('sent_bytes', 0))}, "
            f"received {volume(road.get('received_bytes', 0))}, {hosts}",
        )
        for leg in road.get("open_legs", ()):
            yield _line("", _leg(leg))
    lost = [direction for direction in DIRECTIONS if direction in status.get("lost", ())]
    if lost:
        yield _line("lost", " and ".join(lost) + ": no leg now")


def _leg(leg: Mapping[str, Any]) -> str:
    where = str(leg.get("domain", ""))
    if leg.get("address"):
        where += f" ({leg['address']})"
    round_trip = leg.get("round_trip")
    times = "" if round_trip is None else f"{_milliseconds(round_trip)}, "
    return (
        f"leg {leg.get('number')}: {where}, {times}{duration(leg.get('age', 0))} old, "
        f"sent {volume(leg.get('sent_bytes', 0))}, received {volume(leg.get('received_bytes', 0))}"
    )


def _names_and_protection(status: Mapping[str, Any]) -> Iterator[str]:
    dns = status.get("dns")
    if isinstance(dns, Mapping):
        backend = f" by {dns['backend']}" if dns.get("backend") else ""
        asked = dns.get("cache_hits", 0) + dns.get("cache_misses", 0)
        yield _line(
            "dns", f"{dns.get('mode')}{backend}, {dns.get('cache_hits', 0)} of {asked} from the cache"
        )
    protection = status.get("protection")
    if isinstance(protection, Mapping) and (
        protection.get("active") or protection.get("kill_switch") != "off"
    ):
        active = "active" if protection.get("active") else "not active"
        verified = "verified" if protection.get("verified") else "not verified"
        yield _line("protection", f"kill switch {protection.get('kill_switch')}, {active}, {verified}")
    if isinstance(protection, Mapping) and "inbound" in protection:
        replies = "replies leave outside the tunnel" if protection["inbound"] else "closed"
        yield _line("inbound", replies)


def _shaping(status: Mapping[str, Any]) -> Iterator[str]:
    shaping = status.get("shaping")
    if not isinstance(shaping, Mapping) or shaping.get("wanted", "off") == "off":
        return
    text = str(shaping.get("mode"))
    state = shaping.get("state")
    if state == "bulk":
        text += ", bulk, not hidden"
    elif state in ("clock", "stepped-down"):
        text += ", active" if state == "clock" else ", stopped"
    if shaping.get("bits_per_activity") is not None:
        text += (
            f", at most {shaping['bits_per_activity']} bits an activity, "
            f"{shaping.get('activities_per_hour', 0):g} activities an hour, "
            f"overhead {100 * shaping.get('overhead', 0.0):.0f} % ({volume(shaping.get('padding_bytes', 0))})"
        )
    yield _line("shaping", text)
    if shaping.get("sentence"):
        yield _line("", printable(str(shaping["sentence"])))
    escapes = shaping.get("escapes")
    if isinstance(escapes, Mapping) and escapes:
        yield _line("escapes", ", ".join(f"{reason} {count}" for reason, count in sorted(escapes.items())))


def _line(name: str, text: str) -> str:
    return f"{name:<11} {text}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def printable(text: str) -> str:
    """Return ``text`` without control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)


def volume(count: float) -> str:
    """Format a number of bytes: ``1.5 MiB``."""
    return in_units(count, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def in_units(count: float, step: int, units: Sequence[str]) -> str:
    """Format ``count`` in one of ``units``, each ``step`` times the one before; the first has no fraction."""
    for unit in units[:-1]:
        if count < step:
            return f"{count:.0f}{unit}" if unit == units[0] else f"{count:.1f}{unit}"
        count /= step
    return f"{count:.1f}{units[-1]}"


def duration(seconds: float) -> str:
    """Format a duration in seconds: ``2 h 5 min``."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
