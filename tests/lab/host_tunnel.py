"""One tunnel on a host, for tests that ask of it to come, to stay as it is and to go."""

from __future__ import annotations

from pathlib import Path

from halftunnel_vpn.host import Desired, Host, HostState, TrafficPolicy


class HostTunnel:
    """``policy`` is what may leave outside the tunnel while it is there, ``after`` once it has gone."""

    def __init__(
        self,
        state: HostState,
        state_dir: Path,
        *,
        resolv_conf: Path,
        policy: TrafficPolicy | None = None,
        after: TrafficPolicy | None = None,
    ) -> None:
        self.host = Host(state_dir, resolv_conf=resolv_conf)
        self.desired = Desired(state, policy)
        self._after = Desired(None, after)

    def apply(self) -> list[str]:
        """Bring the tunnel up, or put back what differs; return warnings."""
        return self.host.apply(self.desired)

    def verify(self) -> list[str]:
        """Return how the host differs from one with this tunnel."""
        self.host.desired = self.desired
        return self.host.differences()

    def cleanup(self) -> None:
        """Take the tunnel off the host."""
        self.host.apply(self._after)
