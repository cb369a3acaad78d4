"""What a command says about the exits of a profile is answered, however many it has."""

from __future__ import annotations

import asyncio

from halftunnel_vpn.client.connection import ConnectionOwner
from halftunnel_vpn.client.exits.exit_link import Dialling, ExitLink
from halftunnel_vpn.client.exits.exit_ranking import BY_PRIORITY, ExitChoice


async def test_a_choice_among_one_exit_is_answered(running_exit, make_client):
    await running_exit.start()
    client = make_client()
    owner = ConnectionOwner(lambda hello: None, lambda now: None)
    dialling = Dialling(client._resolver, client._options, None)
    link = ExitLink(client.profile, client.driver, client.counters, owner, dialling)
    await link.establish()
    running = asyncio.ensure_future(link.run())
    try:
        async with asyncio.timeout(30):
            for choice in (ExitChoice(fastest=True), ExitChoice("laptop"), BY_PRIORITY):
                assert await link.choose(choice) == "laptop"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        link.close()
