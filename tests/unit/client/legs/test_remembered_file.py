"""What was learnt of intervals is on disk, whole or not at all; a bad file costs nothing else."""

from __future__ import annotations

import asyncio
import json

import pytest

from halftunnel_vpn.client.legs import remembered_file
from halftunnel_vpn.client.legs.remembered_file import KEEPALIVE_FILE, RememberedFile
from halftunnel_vpn.session.intervals import IntervalTable
from halftunnel_vpn.transport.driver import Driver


@pytest.fixture
async def remember(tmp_path):
    """Makes memories of one directory, as one process after the other has them."""
    driver = Driver(asyncio.get_running_loop())

    def make(directory=tmp_path / "state"):
        memory = RememberedFile(IntervalTable(), directory / KEEPALIVE_FILE, driver)
        memory.start()
        return memory

    yield make
    driver.close()


def learn(memory, domain="cdn.example:443"):
    for _ in range(3):
        memory.table.survived(domain, 8.0)


async def test_the_next_process_goes_on_where_this_one_was(remember):
    memory = remember()
    learn(memory)
    memory.stop()
    assert remember().table.interval("cdn.example:443") == 12.0


async def test_it_is_written_while_the_tunnel_is_up(remember, tmp_path, monkeypatch):
    monkeypatch.setattr(remembered_file, "SAVE_INTERVAL", 0.02)
    memory = remember()
    learn(memory)
    path = tmp_path / "state" / KEEPALIVE_FILE
    async with asyncio.timeout(30):
        while not path.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert json.loads(path.read_text())["cdn.example:443"]["interval"] == 12.0
    memory.stop()


async def test_nothing_new_is_not_written(remember, tmp_path):
    remember().stop()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 5}', "\udcff", "[" * 100_000])
async def test_a_file_that_makes_no_sense_is_told_and_overwritten(remember, tmp_path, caplog, text):
    path = tmp_path / "state" / KEEPALIVE_FILE
    path.parent.mkdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    memory = remember()
    assert text == "[1]" or KEEPALIVE_FILE in caplog.text
    learn(memory)
    memory.stop()
    assert remember().table.interval("cdn.example:443") == 12.0


async def test_a_directory_that_takes_nothing_is_told_once(remember, tmp_path, caplog):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    memory = remember(blocked)
    learn(memory, "a.example")
    memory._save()
    learn(memory, "b.example")
    memory.stop()
    assert caplog.text.count("cannot be written") == 1
