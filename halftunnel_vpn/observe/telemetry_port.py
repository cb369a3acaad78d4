"""The export of spans and metrics as its users see it."""

from __future__ import annotations

from typing import Final, Protocol

from halftunnel_vpn.config.shared import TelemetryConfig
from halftunnel_vpn.protocol.keys import SessionKeys
from halftunnel_vpn.protocol.trace_ports import SessionTrace, Tracing


class TelemetryPort(Tracing, Protocol):
    """Exports while it is started (``observe/telemetry.py``)."""

    def start(self, config: TelemetryConfig) -> None:
        """Begin to collect, if ``config`` asks for it. Nothing is sent yet. Raises HostError."""
        ...

    def release(self) -> None:
        """Send from now on."""
        ...

    async def flush(self) -> None:
        """Send what was collected. Give up after FLUSH_TIMEOUT."""
        ...

    def close(self) -> None:
        """Collect and send nothing more. Repeatable."""
        ...


class _NoTelemetry:
    def session(self, keys: SessionKeys, *, is_client: bool) -> SessionTrace | None:
        return None

    def handshake_failed(self, reason: str, began: float) -> None:
        """Report nothing."""

    def start(self, config: TelemetryConfig) -> None:
        """Collect nothing."""

    def release(self) -> None:
        """Send nothing."""

    async def flush(self) -> None:
        """Send nothing."""

    def close(self) -> None:
        """Do nothing."""


NO_TELEMETRY: Final = _NoTelemetry()
