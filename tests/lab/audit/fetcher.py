"""Loads pages as a browser does, without one: `python -m lab.audit.fetcher`.

Reads one JSON object a line, ``{"site": DATA, "variant": N}`` with DATA of :func:`lab.audit.sites.as_data`,
and answers each with ``{"began": UNIX TIME, "seconds": N, "bytes": N, "error": null}``.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
import time
from typing import Any, Final

from lab.audit import http2
from lab.audit.sites import VARIANTS, Resource, from_data, variant_path, variant_size

PORT: Final = 443

LOAD_TIMEOUT: Final = 30.0
"""Seconds after which a load has failed."""


class Load:
    """One load of one page: a connection to each name, dependent files after those that lead to them."""

    def __init__(self, root: Resource, draw: random.Random) -> None:
        self._root = root
        self._draw = draw
        self._connections: dict[str, asyncio.Task[http2.Connection]] = {}
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._context.set_alpn_protocols(["h2"])
        self.bytes = 0

    async def run(self) -> None:
        """Load everything. Raises OSError, Http2Error."""
        try:
            await self._fetch(self._root)
        finally:
            for opening in self._connections.values():
                opening.cancel()
            done = await asyncio.gather(*self._connections.values(), return_exceptions=True)
            await asyncio.gather(*(each.close() for each in done if isinstance(each, http2.Connection)))

    async def _fetch(self, resource: Resource) -> None:
        path, size = resource.path, resource.size
        if resource.kind == "variant":
            which = self._draw.randrange(VARIANTS)
            path, size = variant_path(path, which), variant_size(size, which)
        received = await (await self._connection(resource.host)).get(resource.host, path)
        if received < size:
            raise http2.Http2Error(f"{path} has {received} bytes instead of {size}")
        self.bytes += received
        if resource.children:
            await asyncio.sleep(resource.think * self._draw.uniform(0.7, 1.6))
            await asyncio.gather(*map(self._fetch, resource.children))

    async def _connection(self, host: str) -> http2.Connection:
        if host not in self._connections:
            opening = http2.Connection.open(host, PORT, self._context)
            self._connections[host] = asyncio.create_task(opening)
        return await asyncio.shield(self._connections[host])


async def answer(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order."""
    load = Load(from_data(order["site"]), random.Random(order["variant"]))
    error = None
    began, start = time.time(), time.monotonic()
    try:
        await asyncio.wait_for(load.run(), LOAD_TIMEOUT)
    except (OSError, TimeoutError, http2.Http2Error) as problem:
        error = f"{type(problem).__name__}: {problem}"
    return {"began": began, "seconds": time.monotonic() - start, "bytes": load.bytes, "error": error}


def main() -> None:
    """Answer orders until standard input ends."""
    for line in sys.stdin:
        print(json.dumps(asyncio.run(answer(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
