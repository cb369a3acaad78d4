"""Checks before anything is changed. Each failure is one sentence that says what is missing."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel import nft

TUN_DEVICE: Final = Path("/dev/net/tun")

_CAP_NET_ADMIN: Final = 12


def preflight(device: str, *, tun_device: Path = TUN_DEVICE) -> None:
    """Raise HostError, one sentence, if a tunnel named ``device`` cannot be brought up on this host."""
    preflight_host(tun_device=tun_device)
    if device_exists(device):
        raise HostError(
            f"The device name {device} is taken: end the program that uses it, or choose another name."
        )


def preflight_host(*, tun_device: Path = TUN_DEVICE) -> None:
    """Raise HostError, one sentence, if no tunnel at all can be brought up on this host."""
    if not _may_administer():
        raise HostError(
            "A tunnel needs root with the capability NET_ADMIN: run the command with sudo, or give the "
            "container that capability."
        )
    if not tun_device.exists():
        raise HostError(
            f"There is no {tun_device}: load the driver with `modprobe tun`, or pass it to the container."
        )
    if nft.find_program() is None:
        raise HostError("nft is not installed: install the package nftables.")


def device_exists(device: str) -> bool:
    """Return whether this network namespace has a device of that name."""
    try:
        socket.if_nametoindex(device)
    except OSError:
        return False
    return True


def _may_administer() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return False
