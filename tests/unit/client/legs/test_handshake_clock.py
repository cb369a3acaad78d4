"""Timestamps rise whatever the clock does, and follow the exit's where the host's is wrong."""

from __future__ import annotations

import json

import pytest

from halftunnel_vpn.client.legs import handshake_clock
from halftunnel_vpn.client.legs.handshake_clock import FILE, SECOND, HandshakeClock, TimestampMemory

NOW = 1_900_000_000.0
CLIENT, EXIT = b"c" * 32, b"e" * 32


class Host:
    """A host whose clock can be set."""

    def __init__(self, directory=None):
        self.wall = NOW
        self.uptime = 100.0
        self.directory = directory

    def start(self):
        memory = None if self.directory is None else TimestampMemory(self.directory, CLIENT, EXIT)
        return HandshakeClock(memory, wall_clock=lambda: self.wall, elapsed=lambda: self.uptime)

    def let_pass(self, seconds):
        self.wall += seconds
        self.uptime += seconds


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


async def test_timestamps_are_the_time_and_never_the_same(host):
    clock = host.start()
    assert await clock.next() == NOW * SECOND
    assert await clock.next() == NOW * SECOND + 1
    host.let_pass(1)
    assert await clock.next() == (NOW + 1) * SECOND
    assert not clock.notices


async def test_a_clock_that_goes_back_does_not_take_them_back(host):
    clock = host.start()
    first = await clock.next()
    host.wall -= 200
    assert await clock.next() == first + 1


async def test_nor_does_it_after_a_restart(host):
    first = await host.start().next()
    host.wall -= 200
    assert await host.start().next() == first + 1


async def test_every_pair_of_client_and_exit_has_its_own(host):
    await host.start().next()
    host.wall -= 200
    other = TimestampMemory(host.directory, CLIENT, b"x" * 32)
    assert other.load() == 0
    other.save(5)
    assert await host.start().next() == NOW * SECOND + 1


async def test_only_so_many_pairs_are_remembered(host, monkeypatch):
    monkeypatch.setattr(handshake_clock, "MAX_PROFILES", 3)
    for number in range(5):
        TimestampMemory(host.directory, CLIENT, bytes([number]) * 32).save(100 - number)
    assert sorted(json.loads((host.directory / FILE).read_text()).values()) == [96, 99, 100]


@pytest.mark.parametrize("content", ["", "no json", "[1]", '{"a": "b"}', '{"a": true}', "[" * 10_000])
async def test_a_spoilt_file_is_begun_again_and_told_once(host, caplog, content):
    (host.directory / FILE).write_text(content)
    assert await host.start().next() == NOW * SECOND
    assert len(caplog.records) == 1 and FILE in caplog.text
    assert await host.start().next() == NOW * SECOND + 1


async def test_a_directory_that_takes_nothing_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    clock = Host(tmp_path / "file").start()
    assert await clock.next() + 1 == await clock.next()
    assert caplog.records


@pytest.mark.parametrize(("hours", "words"), [(1, "60 minutes behind"), (-72, "3 days ahead of")])
async def test_an_exit_that_refuses_the_time_is_followed(host, hours, words):
    clock = host.start()
    await clock.next()
    exit_time = NOW + hours * 3600
    clock.follow(int(exit_time * SECOND))
    assert abs(await clock.next() / SECOND - exit_time) < 1
    host.let_pass(1000)
    assert abs(await clock.next() / SECOND - exit_time - 1000) < 1
    assert len(clock.notices) == 1 and words in clock.notices[0]


async def test_a_host_whose_clock_is_set_right_goes_by_it_again(host):
    clock = host.start()
    clock.follow(int((NOW + 3600) * SECOND))
    await clock.next()
    host.wall += 3601
    await clock.next()
    assert not clock.notices
    host.let_pass(5)
    assert await clock.next() == host.wall * SECOND


async def test_the_exits_time_goes_on_when_the_hosts_clock_jumps(host):
    clock = host.start()
    clock.follow(int((NOW + 3600) * SECOND))
    host.wall -= 86_400
    host.let_pass(10)
    assert abs(await clock.next() / SECOND - NOW - 3610) < 1


async def test_after_a_stale_time_it_goes_on_from_the_exits_last_one(host):
    clock = host.start()
    await clock.next()
    last = int((NOW + 250) * SECOND)
    clock.skip(last)
    assert await clock.next() == last + 1
    clock.accepted(at_once=False)
    assert "another device" in clock.notices[0]
    host.let_pass(300)
    await clock.next()
    clock.accepted(at_once=True)
    assert not clock.notices


@pytest.mark.parametrize("told", ["follow", "skip"])
async def test_an_exit_that_tells_nonsense_moves_no_clock(host, told):
    """A timestamp that no message can carry would stay on disk, and keep the client from every exit."""
    clock = host.start()
    getattr(clock, told)(2**64 - 1)
    assert await clock.next() == NOW * SECOND
    assert await host.start().next() == NOW * SECOND + 1


async def test_a_file_with_a_nonsensical_time_counts_as_empty(host):
    await host.start().next()
    file = host.directory / FILE
    file.write_text(json.dumps(dict.fromkeys(json.loads(file.read_text()), 2**64 - 1)))
    assert await host.start().next() == NOW * SECOND
