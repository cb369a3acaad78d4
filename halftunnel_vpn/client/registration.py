"""Registers the key of a new profile at the exit: a handshake that shows the secret of an invitation."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import Final

from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.client.legs.connector import Connector
from halftunnel_vpn.client.legs.handshake_sentences import explain
from halftunnel_vpn.client.settings import dial_options
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HandshakeError, HostError, RoadError

FAREWELL: Final = 1.0
"""Seconds in which the exit may answer that the session of the registration has ended."""


async def register(profile: ClientProfile, secret: bytes) -> None:
    """Let the exit admit the key of ``profile``. Raises HostError with one sentence."""
    counters = Counters()
    resolver = RoadResolver(None, counters)
    connector = Connector(
        profile,
        lambda road: dataclasses.replace(dial_options(profile, road, resolver), mark=None),
        counters,
        invitation=secret,
    )
    try:
        await resolver.learn()
        established = await connector.new_session()
    except HandshakeError as error:
        raise HostError(explain(error)) from error
    except RoadError as error:
        raise HostError(f"The exit cannot be reached, or does not know this invitation: {error}") from error
    finally:
        resolver.close()
    established.discard()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FAREWELL):
            await established.upstream.early.wait_closed()
