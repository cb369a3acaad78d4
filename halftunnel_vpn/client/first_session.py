"""The first session of a tunnel: its legs are dialled while the host is checked."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

from halftunnel_vpn.client.legs.new_session import NewSession

LAST_CHANCE = 1.0
"""Seconds that a handshake may still take when the host cannot have a tunnel.

Its session can then be ended by a message to the exit, which would otherwise keep it for a while."""


async def first_session(
    check: Coroutine[Any, Any, None],
    connect: Coroutine[Any, Any, NewSession],
    stopped: asyncio.Future[Literal[True]],
) -> NewSession | None:
    """Return the session that ``connect`` makes, when ``check`` has ended as well; None once ``stopped``.

    Raises what either raises; if both do, the error of ``check``. Both have ended when this returns.
    """
    checking, attempt = asyncio.ensure_future(check), asyncio.ensure_future(connect)
    try:
        await asyncio.wait((checking, stopped), return_when=asyncio.FIRST_COMPLETED)
        is_refused = checking.done() and checking.exception() is not None
        limit = LAST_CHANCE if is_refused else None
        await asyncio.wait((attempt, stopped), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            return None
        checking.result()
        return attempt.result()
    finally:
        checking.cancel()
        attempt.cancel()
        await asyncio.gather(checking, attempt, return_exceptions=True)
