"""The source of the supervisor's profiles: a store, or the one file of a client in the foreground."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.errors import ConfigError


class ProfileSource(Protocol):
    """Profiles by name. Both calls may block; both raise ConfigError or HostError."""

    def resolve(self, name: str | None) -> str:
        """Return the name of an existing profile; None means the active one."""
        ...

    def load(self, name: str) -> ClientProfile:
        """Read and check a profile."""
        ...


class OneProfile:
    """A ProfileSource with one profile. It is read again from the second :meth:`load` on."""

    def __init__(self, profile: ClientProfile, read: Callable[[], ClientProfile]) -> None:
        self._name = profile.name
        self._first: ClientProfile | None = profile
        self._read = read

    def resolve(self, name: str | None) -> str:
        """Return the name of the only profile. Raises ConfigError for any other name."""
        if name not in (None, self._name):
            raise ConfigError(f"this client runs in the foreground and has one profile, {self._name}")
        return self._name

    def load(self, name: str) -> ClientProfile:
        """Return the profile."""
        first, self._first = self._first, None
        return self._read() if first is None else first
