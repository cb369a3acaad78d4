"""What all routes of a control socket have in common: who may use them, and JSON in both directions."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from halftunnel_vpn.control.control_service import JSON, Handler, Response, failure
from halftunnel_vpn.control.peer import may_control
from halftunnel_vpn.control.request_reader import Request
from halftunnel_vpn.errors import ConfigError, HalfTunnelError, UsageError


def guarded_all(routes: dict[tuple[str, str], Handler], group: str) -> dict[tuple[str, str], Handler]:
    """Restrict every handler to root, the user of this process and members of ``group``."""
    return {place: _guarded(handler, group) for place, handler in routes.items()}


def _guarded(handler: Callable[[Request], Awaitable[Response]], group: str) -> Handler:
    """Restrict ``handler`` to permitted peers; turn our own exceptions into answers with their sentence."""

    async def guarded(request: Request) -> Response:
        if not may_control(request.peer, group):
            return failure(403, f"only root and members of the group {group} may use htvpn here")
        try:
            return await handler(request)
        except (UsageError, ConfigError) as error:
            return failure(400, str(error))
        except HalfTunnelError as error:
            return failure(409, str(error))

    return guarded


def json_answer(content: Mapping[str, Any], status: int = 200) -> Response:
    """Return an answer with a JSON object."""
    return Response(status, JSON, json.dumps(content).encode() + b"\n")


def json_body(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request; an empty body is an empty object. Raises UsageError."""
    if not request.body.strip():
        return {}
    try:
        content = json.loads(request.body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UsageError("the body must be one JSON object")
    return content
