"""The meters of all clients, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from halftunnel_vpn.timers import Wheel
from halftunnel_vpn.transport.relay.meter import Meter


class Meters:
    """Makes a meter for a client when it is first asked for. :meth:`keep` bounds their number."""

    def __init__(self, wheel: Wheel, clock: Callable[[], float]) -> None:
        self._wheel = wheel
        self._clock = clock
        self._meters: dict[str, Meter] = {}

    def of(self, client: str) -> Meter:
        """Return the meter of ``client``; all its sessions share it."""
        meter = self._meters.get(client)
        if meter is None:
            meter = self._meters[client] = Meter(self._wheel, self._clock)
        return meter

    def __iter__(self) -> Iterator[tuple[str, Meter]]:
        return iter(self._meters.items())

    def keep(self, listed: Callable[[str], bool]) -> None:
        """Forget the meters of clients that are not ``listed``."""
        for client in [client for client in self._meters if not listed(client)]:
            del self._meters[client]

    def readings(self) -> dict[tuple[str, ...], float]:
        """Return the bytes of each client, by name and direction as the exit sees it, for the metrics."""
        found: dict[tuple[str, ...], float] = {}
        for client, meter in self._meters.items():
            found[client, "sent"] = meter.sent
            found[client, "received"] = meter.received
        return found
