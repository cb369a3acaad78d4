"""The routes that both sides serve: metrics and health for machines, status and stop for the command line."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from halftunnel_vpn.control.service import JSON, TEXT, Handler, Request, Response, failure
from halftunnel_vpn.control.status import DOWN_PATH, STATUS_PATH
from halftunnel_vpn.errors import HostError


def observation_routes(
    render: Callable[[], tuple[str, bytes]], ready: Callable[[], bool]
) -> dict[tuple[str, str], Handler]:
    """``/metrics``, ``/healthz`` (this process answers) and ``/readyz`` (it also does its work)."""

    async def metrics(_request: Request) -> Response:
        return Response(200, *render())

    async def health(_request: Request) -> Response:
        return Response(200, TEXT, b"ok\n")

    async def readiness(_request: Request) -> Response:
        return Response(200, TEXT, b"ready\n") if ready() else Response(503, TEXT, b"not ready\n")

    return {("GET", "/metrics"): metrics, ("GET", "/healthz"): health, ("GET", "/readyz"): readiness}


def tunnel_routes(
    status: Callable[[], Mapping[str, Any]],
    stop: Callable[[], None],
    adopt: Callable[[int, str], Awaitable[None]],
) -> dict[tuple[str, str], Handler]:
    """``GET /v1/status``, ``POST /v1/down`` and ``POST /v1/programs``, all as docs/CONTROL.md has them."""

    async def tell(_request: Request) -> Response:
        return Response(200, JSON, json.dumps(status()).encode() + b"\n")

    async def down(_request: Request) -> Response:
        stop()
        return Response(202, JSON, b'{"stopping": true}\n')

    async def programs(request: Request) -> Response:
        try:
            name = json.loads(request.body)["list"]
        except (ValueError, TypeError, KeyError):
            name = None
        if name not in ("excluded", "only") or request.peer is None:
            return failure(400, 'list must be "excluded" or "only"')
        try:
            await adopt(request.peer.pid, name)
        except HostError as error:
            return failure(409, str(error))
        return Response(200, JSON, json.dumps({"pid": request.peer.pid}).encode() + b"\n")

    return {
        ("GET", STATUS_PATH): tell,
        ("POST", DOWN_PATH): down,
        ("POST", "/v1/programs"): programs,
    }
