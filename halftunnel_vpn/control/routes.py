"""The routes that both sides serve: metrics and health for machines, status and stop for the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from halftunnel_vpn.control.service import JSON, TEXT, Handler, Request, Response
from halftunnel_vpn.control.status import DOWN_PATH, STATUS_PATH


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
    status: Callable[[], Mapping[str, Any]], stop: Callable[[], None]
) -> dict[tuple[str, str], Handler]:
    """``GET /v1/status`` and ``POST /v1/down``; the shape of a status is in ``control/status.py``."""

    async def tell(_request: Request) -> Response:
        return Response(200, JSON, json.dumps(status()).encode() + b"\n")

    async def down(_request: Request) -> Response:
        stop()
        return Response(202, JSON, b'{"stopping": true}\n')

    return {("GET", STATUS_PATH): tell, ("POST", DOWN_PATH): down}
