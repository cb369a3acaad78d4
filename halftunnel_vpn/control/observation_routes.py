"""The routes for monitoring that both sides serve: metrics and health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from halftunnel_vpn.control.control_service import TEXT, Handler, Response
from halftunnel_vpn.control.request_reader import Request


def observation_routes(
    render: Callable[[], tuple[str, bytes]], problems: Callable[[], Awaitable[Sequence[str]]]
) -> dict[tuple[str, str], Handler]:
    """Return ``/metrics``, ``/healthz`` (the process answers) and ``/readyz`` (it can also do its work).

    ``problems`` returns what keeps the process from its work, a sentence each; none when it is ready.
    """

    async def metrics(_request: Request) -> Response:
        return Response(200, *render())

    async def health(_request: Request) -> Response:
        return Response(200, TEXT, b"ok\n")

    async def readiness(_request: Request) -> Response:
        found = await problems()
        if not found:
            return Response(200, TEXT, b"ready\n")
        return Response(503, TEXT, "".join(f"{sentence}\n" for sentence in ["not ready", *found]).encode())

    return {("GET", "/metrics"): metrics, ("GET", "/healthz"): health, ("GET", "/readyz"): readiness}
