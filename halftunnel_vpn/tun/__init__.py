"""The TUN device: whole IP packets of the host, in and out, with the kernel's offloads."""

from __future__ import annotations

from halftunnel_vpn.tun.device import TunDevice

__all__ = ["TunDevice"]
