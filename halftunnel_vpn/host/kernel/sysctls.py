"""The kernel settings a tunnel needs, under /proc/sys of this network namespace."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SOURCE_MARK: Final = "ipv4/conf/all/src_valid_mark"
"""With 1, a strict reverse-path filter honours the mark: replies to our own sockets pass it."""


class Sysctls:
    """The settings below ``root``, by key: the path from there."""

    def __init__(self, root: Path = Path("/proc/sys/net")) -> None:
        self.root = root

    def has_ipv6(self) -> bool:
        """Whether the kernel speaks IPv6 at all."""
        return (self.root / "ipv6/conf/all").is_dir()

    def versions(self) -> tuple[int, ...]:
        """The IP versions that this kernel has."""
        return (4, 6) if self.has_ipv6() else (4,)

    def device_has_ipv6(self, device: str) -> bool:
        """Whether the kernel lets this device speak IPv6."""
        return self.read(f"ipv6/conf/{device}/disable_ipv6") == "0"

    def of_device(self, device: str) -> dict[str, str]:
        """Settings of the TUN itself; they vanish with it."""
        wanted = {
            # A router beyond the exit may have an address that this host's LAN has too: take its errors.
            f"ipv4/conf/{device}/rp_filter": "2",
            # A program that may only go inside and asks a resolver at 127.0.0.53 gets its answer from here.
            f"ipv4/conf/{device}/route_localnet": "1",
        }
        if self.has_ipv6():
            wanted |= {
                f"ipv6/conf/{device}/addr_gen_mode": "1",  # no link-local address, so no router solicitations
                f"ipv6/conf/{device}/accept_ra": "0",
            }
        return wanted

    def for_gateway(self) -> dict[str, str]:
        """Settings with which this host forwards, by key, for as long as a LAN goes through its tunnel.

        A host that forwards IPv6 would no longer listen to its own router: with accept_ra 2 it does.
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
        """What each device's own IPv6 forwarding is now: setting that of `all` sets them too."""
        paths = sorted((self.root / "ipv6/conf").glob("*/forwarding"))
        keys = [f"ipv6/conf/{path.parent.name}/forwarding" for path in paths if path.parent.name != "all"]
        return {key: value for key in keys if (value := self.read(key)) is not None}

    def read(self, key: str) -> str | None:
        """The value, None when the kernel has no such setting."""
        try:
            return (self.root / key).read_text().strip()
        except OSError:
            return None

    def write(self, key: str, value: str) -> str | None:
        """Set a value unless it stands already; a sentence when that is not allowed, else None."""
        if self.read(key) == value:
            return None
        try:
            (self.root / key).write_text(value)
        except OSError as error:
            name = f"net.{key.replace('/', '.')}"
            return f"The setting {name} could not be made {value} ({error.strerror}): make it so on the host."
        return None
