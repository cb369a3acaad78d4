"""Which congestion control the TCP of a lab's hosts uses: theirs all, as a distribution ships it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from lab.topology import HOSTS, Lab

_SETTINGS: Final = Path("/proc/sys/net/ipv4")
_AVAILABLE: Final = _SETTINGS / "tcp_available_congestion_control"
_ALLOWED: Final = _SETTINGS / "tcp_allowed_congestion_control"
_DEFAULT: Final = _SETTINGS / "tcp_congestion_control"


def available() -> list[str]:
    """What this machine's kernel has, without loading modules."""
    return _AVAILABLE.read_text().split()


def use(lab: Lab, name: str) -> None:
    """Make ``name`` the default of every host of ``lab``, for sockets that are made from now on.

    Only the lab's namespaces change. HostError when the kernel does not have it.
    """
    try:
        with _allowed(name):
            for host in HOSTS:
                with lab.inside(host):
                    _DEFAULT.write_text(name)
    except OSError as error:
        raise HostError(
            f"the lab cannot use the congestion control {name} ({error.strerror}); "
            f"the kernel has {', '.join(available())}"
        ) from error


@contextlib.contextmanager
def _allowed(name: str) -> Iterator[None]:
    """Let namespaces have ``name`` for a moment: a restricted one is the first namespace's alone."""
    before = _ALLOWED.read_text()
    if name in before.split() or name not in available():
        yield
        return
    _ALLOWED.write_text(f"{before.strip()} {name}")
    try:
        yield
    finally:
        _ALLOWED.write_text(before)
