"""What the proxy's traffic looks like on both paths, how much of it there may be, and that it comes back."""

from __future__ import annotations

import os

import pytest
from lab.topology import CLIENT, ROAD_A, ROAD_B

pytestmark = pytest.mark.root

MANY = 2000

CONNECT_MANY = f"""
import asyncio

REQUEST = b"GET /small.txt HTTP/1.1\\r\\nHost: target.test\\r\\n\\r\\n"
WHERE = bytes((5, 1, 0, 3, 11)) + b"target.test" + (80).to_bytes(2, "big")

async def connect():
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", 1080)
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
    writer.write(bytes((5, 1, 0)) + WHERE)
    answer = await reader.readexactly(12)
    assert answer[3] == 0, answer
    return reader, writer

async def ask(reader, writer):
    writer.write(REQUEST)
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    assert len(await reader.readexactly(1000)) == 1000

async def main():
    async with asyncio.timeout(100):
        connections = await asyncio.gather(*(connect() for _ in range({MANY})))
        await asyncio.gather(*(ask(*connection) for connection in connections))
    print(len(connections), "at once")

asyncio.run(main())
"""


def test_each_path_carries_one_direction(rig):
    def moved(command: str) -> dict[str, int]:
        before = {road: rig.lab.counters(CLIENT, road) for road in (ROAD_A, ROAD_B)}
        rig.client(command)
        after = {road: rig.lab.counters(CLIENT, road) - before[road] for road in before}
        return {
            f"{road} {way}": getattr(after[road], f"{way}_bytes")
            for road in after
            for way in ("sent", "received")
        }

    size = 100_000_000
    down = moved("curl -sSf --socks5-hostname 127.0.0.1:1080 -o /dev/null http://target.test/large.bin")
    assert down["road-b received"] >= size
    assert sum(down.values()) - down["road-b received"] < size / 20, down
    content = rig.proxy.directory / "up.bin"
    content.write_bytes(os.urandom(size // 2))
    up = moved(f"curl -sSf --socks5-hostname 127.0.0.1:1080 -T {content} http://target.test/upload/up.bin")
    assert up["road-a sent"] >= size // 2
    assert sum(up.values()) - up["road-a sent"] < size / 40, up
    assert (rig.target.uploads / "up.bin").read_bytes() == content.read_bytes()


def test_two_thousand_connections_at_once(rig):
    assert f"{MANY} at once" in rig.python(CONNECT_MANY, timeout=150)


def test_a_request_waits_while_the_exit_is_started_again(rig):
    rig.tunnel.stop_exit()
    rig.tunnel.start_exit()
    said = rig.client(
        "curl -sSf --retry 5 --retry-all-errors --retry-delay 1 --socks5-hostname 127.0.0.1:1080 "
        "http://target.test/small.txt | wc -c"
    )
    assert said.strip().splitlines()[-1] == "1000"
