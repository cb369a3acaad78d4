"""The journal's step that points the host to the tunnel's resolvers: apply, compare, undo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from halftunnel_vpn.host.host_state import HostState
from halftunnel_vpn.host.preflight import device_exists
from halftunnel_vpn.host.record.journal import Journal
from halftunnel_vpn.host.resolver import backends

NAME: Final = "resolver"
"""The name of the step in the journal."""


@dataclass(frozen=True, slots=True)
class Takeover:
    """A change by another program: what differs (a sentence), and which program it was."""

    difference: str
    by: str


class ResolverStep:
    """The step for one host, whose programs read ``resolv_conf``. Calls raise HostError."""

    def __init__(self, resolv_conf: Path) -> None:
        self.kind: str | None = None
        """The KIND of the backend that points the host to the tunnel's resolvers; None if there is none."""
        self._resolv_conf = resolv_conf

    def apply(self, journal: Journal, state: HostState) -> str | None:
        """Point the host to the servers of ``state``. Return a sentence if that fails, otherwise None."""
        if state.dns is None:
            return self.undo(journal, state)
        backend = self._backend(journal)
        if backend is None:
            if backends.is_orphaned(self._resolv_conf):
                return (
                    f"{self._resolv_conf} still names an earlier tunnel's servers and its original is lost: "
                    "write the host's own servers into it."
                )
            backend = backends.choose(state.tun, self._resolv_conf)
        backend.adopt()
        step = backend.step()
        journal.record(NAME, **step)
        problem = backend.apply(state.tun, state.dns)
        self.kind = None if problem is not None else str(step["kind"])
        return problem

    def undo(self, journal: Journal, state: HostState) -> str | None:
        """Restore everything and remove the step. Return a sentence if that fails, otherwise None."""
        backend = self._backend(journal)
        if backend is None:
            return None
        problem = None
        # The memory of this boot's systemd-resolved is lost with the boot, and with the device.
        if not isinstance(backend, backends.ResolvedBackend) or (
            journal.is_current and device_exists(state.tun)
        ):
            problem = backend.undo(state.tun)
        if problem is None:
            del journal.steps[NAME]
            self.kind = None
        return problem

    def difference(self, journal: Journal | None, state: HostState) -> str | None:
        """Return how the host differs from ``state``, as a sentence; None if it does not."""
        if state.dns is None:
            return None
        backend = self._backend(journal)
        if backend is None:
            return f"{self._resolv_conf} does not name the tunnel's servers."
        return backend.difference(state.tun, state.dns)

    def takeover(self, journal: Journal | None, state: HostState) -> Takeover | None:
        """Return which program has changed the result of :meth:`apply`; None if it is unchanged."""
        backend = self._backend(journal)
        if backend is None or state.dns is None:
            return None
        difference = backend.difference(state.tun, state.dns)
        return None if difference is None else Takeover(difference, backend.taken_by())

    def own_servers(self, journal: Journal | None, state: HostState) -> tuple[str, ...]:
        """Return the resolvers that the host would ask without the tunnel, as far as known."""
        backend = self._backend(journal)
        if backend is None:
            return backends.system_servers(self._resolv_conf)
        return backend.own_servers(state.tun)

    def watched_file(self, journal: Journal | None) -> Path | None:
        """Return the file in which a takeover shows first; None if there is none."""
        backend = self._backend(journal)
        return None if backend is None else backend.watched()

    def _backend(self, journal: Journal | None) -> backends.ResolverBackend | None:
        """Return the backend that the journal names."""
        step = None if journal is None else journal.steps.get(NAME)
        return None if step is None else backends.from_step(step, self._resolv_conf)
