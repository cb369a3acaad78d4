"""The routes for monitoring that both sides serve: metrics and health."""

from __future__ import annotations

from collections.abc import Callable

from halftunnel_vpn.control.control_service import TEXT, Handler, Request, Response


def observation_routes(
    render: Callable[[], tuple[str, bytes]], ready: Callable[[], bool]
) -> dict[tuple[str, str], Handler]:
    """Return ``/metrics``, ``/healthz`` (the process answers) and ``/readyz`` (it can also do its work)."""

    async def metrics(_request: Request) -> Response:
        return Response(200, *render())

    async def health(_request: Request) -> Response:
        return Response(200, TEXT, b"ok\n")

    async def readiness(_request: Request) -> Response:
        return Response(200, TEXT, b"ready\n") if ready() else Response(503, TEXT, b"not ready\n")

    return {("GET", "/metrics"): metrics, ("GET", "/healthz"): health, ("GET", "/readyz"): readiness}
