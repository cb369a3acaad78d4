"""The files of the web page, which are part of this package. They are read once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import halftunnel_vpn
from halftunnel_vpn.control.control_service import Handler, Response
from halftunnel_vpn.control.request_reader import Request
from halftunnel_vpn.errors import HostError

PLACE: Final = Path(halftunnel_vpn.__file__).parent / "share" / "web"

START: Final = "index.html"

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def file_routes() -> dict[tuple[str, str], Handler]:
    """Return a route for each file, and ``/`` for the page itself. Raises HostError if they are not there."""
    routes: dict[tuple[str, str], Handler] = {}
    try:
        for path in sorted(PLACE.iterdir()):
            if path.suffix in _TYPES:
                routes["GET", f"/{path.name}"] = _sender(_TYPES[path.suffix], path.read_bytes())
        routes["GET", "/"] = routes["GET", f"/{START}"]
    except (OSError, KeyError) as error:
        raise HostError(f"the web page in {PLACE} is not complete; install htvpn again") from error
    return routes


def _sender(content_type: str, content: bytes) -> Handler:
    async def send(_request: Request) -> Response:
        return Response(200, content_type, content)

    return send
