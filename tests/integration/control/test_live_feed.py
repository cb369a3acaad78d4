"""The feed of open pages: what changes is sent once, a slow page is cut off, a session that ends ends it."""

from __future__ import annotations

import asyncio
import json

import pytest

from halftunnel_vpn.control.exit_routes import ClientRow
from halftunnel_vpn.control.web import live_feed
from halftunnel_vpn.control.web.live_feed import MAX_UNREAD, LiveFeed


def client(name: str, **changes) -> ClientRow:
    row = ClientRow(
        name=name, online=False, since=None, last_seen=None, sessions=0, legs=0, streams=0, sent_rate=0.0,
        received_rate=0.0, today=[0, 0], month=[0, 0], refused=None, expires=None, quota=None, rate=None,
    )  # fmt: skip
    return ClientRow(**{**row, **changes})


class Rig:
    """A feed of rows that a test sets."""

    def __init__(self) -> None:
        self.rows = {"a": client("a"), "b": client("b")}
        self.now = 0.0
        self.dropped: list[str] = []
        self.feed = LiveFeed(lambda: list(self.rows.values()), lambda: self.now, self.dropped.append)

    def subscribe(self, is_allowed=lambda: True):
        reader = self.feed.subscribe(is_allowed)
        assert reader is not None
        return reader


@pytest.fixture
def rig() -> Rig:
    return Rig()


def parsed(part: bytes) -> tuple[str, dict]:
    name, data = part.decode().removesuffix("\n\n").split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def test_all_rows_come_at_first_and_then_only_what_changes(rig):
    reader = rig.subscribe()
    name, content = parsed(await reader.next_part())
    assert name == "clients" and [row["name"] for row in content["clients"]] == ["a", "b"]
    rig.rows["a"] = client("a", online=True, since=1000.2, last_seen=2000.0, legs=2)
    del rig.rows["b"]
    rig.feed.update()
    name, content = parsed(await reader.next_part())
    assert (name, content["gone"]) == ("changes", ["b"])
    assert [(row["name"], row["legs"]) for row in content["clients"]] == [("a", 2)]
    # The same a moment later, as the exit measures it.
    rig.rows["a"] = client("a", online=True, since=1000.2000004, last_seen=2001.0, legs=2)
    rig.feed.update()
    assert reader._events.empty(), "nothing has happened"


async def test_a_page_that_does_not_read_is_cut_off_and_others_go_on(rig):
    slow, quick = rig.subscribe(), rig.subscribe()
    for number in range(MAX_UNREAD + 1):
        rig.rows["a"] = client("a", legs=number + 1)
        rig.feed.update()
        assert await quick.next_part()
    assert await slow.next_part() == b"" and rig.dropped == ["slow-reader"]
    assert await quick.next_part()


async def test_the_feed_ends_with_its_session_and_a_silent_one_has_heartbeats(rig, monkeypatch):
    monkeypatch.setattr(live_feed, "HEARTBEAT", 0.01)
    allowed = [True]
    reader = rig.subscribe(lambda: allowed[0])
    await reader.next_part()
    assert await reader.next_part() == b":\n\n"
    allowed[0] = False
    assert await reader.next_part() == b""


async def test_rows_are_computed_only_while_a_page_is_open(rig):
    asked = 0

    def rows() -> list[ClientRow]:
        nonlocal asked
        asked += 1
        return [client("a")]

    feed = LiveFeed(rows, lambda: 0.0, rig.dropped.append)
    running = asyncio.ensure_future(feed.run())
    await asyncio.sleep(0)
    assert asked == 0
    reader = feed.subscribe(lambda: True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asked == 2 and reader is not None
    reader.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
