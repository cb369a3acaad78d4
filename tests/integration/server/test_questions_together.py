"""The questions of one name that a browser asks at once, from the host to the exit's resolver."""

from __future__ import annotations

import asyncio

from dnslib import DNSRecord

from halftunnel_vpn.client.dns_forward import DnsForwarder
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.dns_config import DnsServiceConfig
from halftunnel_vpn.dns.dns_service import DnsService

TYPES = ("HTTPS", "AAAA", "A")
"""In the order in which Chromium asks."""


async def test_questions_of_one_pass_travel_in_one_train(in_memory, driver, resolver):
    world = in_memory(resolvers=[resolver.endpoint])
    trains: list[bytes] = []
    for link in world.links:
        if link.owner is world.client:
            link.overhear = trains.append
    service = DnsService(
        DnsServiceConfig(),
        DnsForwarder(world.client, driver.clock),
        DnsForwarder(world.client, driver.clock),
        driver.clock,
        Counters(),
    )
    running = asyncio.create_task(service.run())
    await asyncio.sleep(0)
    replies: asyncio.Queue[bytes] = asyncio.Queue()
    for kind in TYPES:
        message = DNSRecord.question("www.example.org", kind).pack()
        service.query(bytes(message), replies.put_nowait, stream=False)
    async with asyncio.timeout(30):
        asked = {DNSRecord.parse(await replies.get()).q.qtype for _ in TYPES}
    assert asked == {65, 28, 1}
    assert sum(b"example" in train for train in trains) == 1
    (together,) = (train for train in trains if b"example" in train)
    assert together.count(b"example") == len(TYPES)
    service.close()
    await running
