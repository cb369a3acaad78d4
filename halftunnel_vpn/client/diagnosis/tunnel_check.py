"""Checks of a running tunnel, by its status: paths, DNS, kill switch."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from halftunnel_vpn.client.diagnosis.finding import Finding, failed, ok, skipped, warning
from halftunnel_vpn.control.status_schema import TunnelState

CHECKED_DOMAIN = "example.com"
"""A name below this one is looked up; it does not exist, so no cache can answer."""

LookUp = Callable[[str], Awaitable[object]]
"""Asks the host's resolver. Raises OSError when there is no answer or no such name."""


def check_status(status: Mapping[str, Any]) -> list[Finding]:
    """Return what the status of a running client says of state, paths and kill switch."""
    state = status["state"]
    found = []
    if state == TunnelState.CONNECTED:
        found.append(ok("tunnel", f"connected through {status.get('device') or 'its device'}"))
    else:
        sentence = status.get("sentence") or "see `htvpn logs`"
        found.append(failed("tunnel", f"{state}: {sentence}"))
    for direction in ("upstream", "downstream"):
        if direction in status:
            found.append(_path(direction, status[direction], direction in status.get("lost", ())))
    found += [warning("notice", notice) for notice in status.get("notices", ())]
    return [*found, check_kill_switch(status["protection"])]


def _path(direction: str, path: Mapping[str, Any], is_lost: bool) -> Finding:
    domains = ", ".join(sorted({leg["domain"] for leg in path["open_legs"]}))
    if is_lost or not path["legs"]:
        urls = ", ".join(path["urls"])
        return failed(direction, f"no leg is open to {urls}: `htvpn logs` names the reason")
    times = [leg["round_trip"] for leg in path["open_legs"] if leg["round_trip"] is not None]
    best = f", round trip {min(times) * 1000:.0f} ms" if times else ""
    legs = "1 leg" if path["legs"] == 1 else f"{path['legs']} legs"
    return ok(direction, f"{legs} to {domains}{best}")


def check_kill_switch(protection: Mapping[str, Any]) -> Finding:
    """Return whether the rules that the profile asks for were read back from the kernel."""
    subject, wanted = "kill switch", protection["kill_switch"]
    if wanted == "off":
        return ok(subject, "off, as the profile says: traffic goes out unprotected while no tunnel is up")
    if not protection["active"]:
        return failed(
            subject, f"{wanted}, but its rules are not in place: run `htvpn reconnect`, or repair it"
        )
    if not protection["verified"]:
        return failed(subject, f"{wanted}, but its rules were changed: see `htvpn logs` for who did it")
    return ok(subject, f"{wanted}, read back from the kernel")


async def check_dns(read_status: Callable[[], Mapping[str, Any] | None], look_up: LookUp) -> Finding:
    """Look a name up as every program does, and see whether the query reached the tunnel's resolver."""
    before = _queries(read_status())
    if before is None:
        return skipped("DNS", 'not tried: [dns] mode is "off", or no tunnel is up')
    try:
        await look_up(f"htvpn-{secrets.token_hex(4)}.{CHECKED_DOMAIN}")
    except (OSError, UnicodeError):
        pass  # No such name, as expected. The counter tells whether the query came through.
    after = _queries(read_status())
    if after is None or after <= before:
        return failed(
            "DNS",
            "queries of this host do not reach the tunnel's resolver: see /etc/resolv.conf and `resolvectl`, "
            "and run `htvpn reconnect`",
        )
    return ok("DNS", "queries of this host reach the tunnel's resolver")


def _queries(status: Mapping[str, Any] | None) -> int | None:
    dns = (status or {}).get("dns")
    if not dns or dns["mode"] == "off":
        return None
    return int(dns["cache_hits"]) + int(dns["cache_misses"])
