"""The kernel settings that a tunnel needs, under /proc/sys of this network namespace."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SOURCE_MARK: Final = "ipv4/conf/all/src_valid_mark"
"""With 1, a strict reverse-path filter uses the mark, so that replies to our own sockets pass it."""


class Sysctls:
    """The settings below ``root``. A key is a path relative to it."""

    def __init__(self, root: Path = Path("/proc/sys/net")) -> None:
        self.root = root

    def has_ipv6(self) -> bool:
        """Return whether the kernel supports IPv6."""
        return (self.root / "ipv6/conf/all").is_dir()

    def versions(self) -> tuple[int, ...]:
        """Return the IP versions that this kernel supports."""
        return (4, 6) if self.has_ipv6() else (4,)

    def device_has_ipv6(self, device: str) -> bool:
        """Return whether IPv6 is enabled on this device."""
        return self.read(f"ipv6/conf/{device}/disable_ipv6") == "0"

    def of_device(self, device: str) -> dict[str, str]:
        """Return the settings of the TUN device. They vanish with it."""
        wanted = {
            # A router beyond the exit may have an address that this host's LAN uses too: accept its errors.
            f"ipv4/conf/{device}/rp_filter": "2",
            # A program that may only use the tunnel gets the answer of a resolver at 127.0.0.53 from this
            # device.
            f"ipv4/conf/{device}/route_localnet": "1",
        }
        if self.has_ipv6():
            wanted |= {
                f"ipv6/conf/{device}/addr_gen_mode": "1",  # no link-local address, so no router solicitations
                f"ipv6/conf/{device}/accept_ra": "0",
            }
        return wanted

    def for_gateway(self) -> dict[str, str]:
        """Return the settings with which this host forwards, while the LAN uses its tunnel.

        A host that forwards IPv6 would ignore the announcements of its own router. accept_ra 2 prevents that.
        """
        wanted = {"ipv4/ip_forward": "1"}
        if self.has_ipv6():
            for path in sorted((self.root / "ipv6/conf").iterdir()):
                key = f"ipv6/conf/{path.name}/accept_ra"
                if path.name not in ("all", "default") and self.read(key) == "1":
                    wanted[key] = "2"
            wanted["ipv6/conf/all/forwarding"] = "1"
        return wanted

    def forwarding_of_devices(self) -> dict[str, str]:
        """Return the present IPv6 forwarding of each device. Setting that of `all` changes them too."""
        paths = sorted((self.root / "ipv6/conf").glob("*/forwarding"))
        keys = [f"ipv6/conf/{path.parent.name}/forwarding" for path in paths if path.parent.name != "all"]
        return {key: value for key in keys if (value := self.read(key)) is not None}

    def read(self, key: str) -> str | None:
        """Return the value; None if the kernel has no such setting."""
        try:
            return (self.root / key).read_text().strip()
        except OSError:
            return None

    def write(self, key: str, value: str) -> str | None:
        """Set a value if it differs. Return a sentence if that is not permitted, otherwise None."""
        if self.read(key) == value:
            return None
        try:
            (self.root / key).write_text(value)
        except OSError as error:
            name = f"net.{key.replace('/', '.')}"
            return (
                f"The kernel setting {name} could not be set to {value} ({error.strerror}): set it yourself."
            )
        return None
