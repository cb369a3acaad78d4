"""Checks of this host: privileges and programs, what was left behind, other VPNs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from halftunnel_vpn.client.diagnosis.finding import Finding, failed, ok, warning
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.preflight import preflight_host
from halftunnel_vpn.host.record.leftovers import leftovers

NETWORK_DEVICES = Path("/sys/class/net")

ROUTES = Path("/proc/net/route")
"""The kernel's main IPv4 routes: device, destination and mask in the columns 0, 1 and 7 (hexadecimal)."""

MAX_NAMED_DEVICES = 8
"""Devices of other VPNs that are named."""


def check_host(state_directory: Path) -> list[Finding]:
    """Return what this host lacks, what an ended client left, and whether another VPN is up."""
    try:
        preflight_host()
        found = [ok("host", "TUN, nft and the needed privileges are there")]
    except HostError as error:
        found = [failed("host", str(error))]
    try:
        left = leftovers(state_directory)
    except HostError as error:
        left = [str(error)]
    found += [failed("leftovers", text) for text in left] or [ok("leftovers", "none")]
    return [*found, check_other_vpns(())]


def check_other_vpns(own: Iterable[str]) -> Finding:
    """Return whether a device of another VPN is up; ``own`` are the names of our devices."""
    devices = [name for name in tunnel_devices() if name not in set(own)]
    if not devices:
        return ok("other VPNs", "no device of one is up")
    names = ", ".join(devices[:MAX_NAMED_DEVICES])
    taking = [name for name in devices if name in _default_devices(ROUTES)]
    if taking:
        return warning(
            "other VPNs",
            f"{', '.join(taking[:MAX_NAMED_DEVICES])} takes all traffic; the tunnel's legs go through it: "
            "end the other VPN unless that is wanted",
        )
    return warning("other VPNs", f"{names} may belong to another VPN; end it if connections fail")


def tunnel_devices() -> list[str]:
    """Return the devices that are up and of a kind that VPNs use: TUN, WireGuard, PPP."""
    found = []
    for device in sorted(NETWORK_DEVICES.iterdir()) if NETWORK_DEVICES.is_dir() else ():
        kind = _read(device / "uevent")
        is_tunnel = (device / "tun_flags").exists() or "DEVTYPE=wireguard" in kind or "DEVTYPE=ppp" in kind
        flags = _read(device / "flags").strip() or "0"
        if is_tunnel and int(flags, 16) & 1:  # IFF_UP
            found.append(device.name)
    return found


def _default_devices(path: Path) -> set[str]:
    """Return the devices of routes to everything, or to half of everything, as VPNs add them."""
    found = set()
    for line in _read(path).splitlines()[1:]:
        fields = line.split()
        if (
            len(fields) > 7
            and fields[1] in ("00000000", "00000080")
            and fields[7] in ("00000000", "00000080")
        ):
            found.add(fields[0])
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
