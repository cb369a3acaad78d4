"""The kill switch around a client in the foreground: in place before the first dial, gone after the last."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from halftunnel_vpn.client.settings import lockdown_policy, traffic_policy
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.host.preflight import preflight_host
from halftunnel_vpn.host.protection import Protection


@contextlib.asynccontextmanager
async def protected(profile: ClientProfile, state_dir: Path) -> AsyncIterator[None]:
    """Refuse what would go around the tunnel while the block runs, as ``[protection]`` says.

    The caller holds the host's lock, so what is in place already was left by a client that is dead: it is
    taken over without a gap. Raises HostError.
    """
    guard = Protection(state_dir)
    policy = traffic_policy(profile)
    if policy is not None:
        preflight_host()
        await asyncio.to_thread(guard.put, policy)
    elif guard.remembered() is not None:
        await asyncio.to_thread(guard.lift)
    try:
        yield
    finally:
        locked = lockdown_policy(profile)
        if locked is not None:
            await asyncio.shield(asyncio.to_thread(guard.put, locked))
        elif policy is not None:
            await asyncio.shield(asyncio.to_thread(guard.lift))
