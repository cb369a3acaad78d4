"""Where the roads' own names lead: asked of the host at first, and of its own resolvers afterwards."""

from __future__ import annotations

import asyncio

import pytest

from halftunnel_vpn.client.host import road_resolver
from halftunnel_vpn.client.host.address_memory import AddressMemory
from halftunnel_vpn.client.host.hosts_file import HostsFile
from halftunnel_vpn.client.host.road_resolver import MAX_NAMES, RoadResolver
from halftunnel_vpn.dns.upstream import UpstreamResolver
from halftunnel_vpn.errors import RoadError


@pytest.fixture
def hosts(tmp_path):
    """A hosts file with nothing in it: "localhost" stands in that of this machine, for getaddrinfo alone."""
    made = tmp_path / "hosts"
    made.write_text("# nothing yet\n")
    return made


@pytest.fixture
async def resolver(counters, hosts, tmp_path):
    made = RoadResolver(mark=0, counters=counters, hosts=HostsFile(hosts), memory=AddressMemory(tmp_path))
    yield made
    made.close()


@pytest.fixture
def direct(resolver, counters, name_server, monkeypatch):
    """The resolver, which has learnt that the host uses ``name_server``, and waits for its answers."""
    monkeypatch.setattr(road_resolver, "FRESH_WAIT", 30)
    resolver._direct = UpstreamResolver([name_server.endpoint], counters=counters, timeout=0.2, attempts=1)
    return resolver


@pytest.fixture
def hanging(monkeypatch):
    """A C library that waits for a name server which is silent."""

    async def hang(host):
        await asyncio.Event().wait()

    monkeypatch.setattr(road_resolver, "look_up", hang)
    monkeypatch.setattr(road_resolver, "FIRST_WAY", 2.0)
    monkeypatch.setattr(road_resolver, "SECOND_WAY", 2.0)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "::1"])
async def test_an_address_needs_nobody(direct, name_server, address):
    assert await direct.resolve(address, 443) == [(address, 443)]
    assert name_server.asked == []


async def test_the_first_time_the_host_is_asked_as_by_every_other_program(direct, name_server):
    found = await direct.resolve("localhost", 443)
    assert ("127.0.0.1", 443) in found
    assert name_server.asked == []


async def test_once_the_host_is_taken_its_own_ways_come_last(direct, name_server):
    name_server.addresses["spare.test"] = ["192.0.2.7"]
    direct.host_is_taken()
    assert await direct.resolve("spare.test", 443) == [("192.0.2.7", 443)]


async def test_later_the_hosts_resolvers_are_asked_past_the_tunnel(direct, name_server):
    await direct.resolve("localhost", 443)
    name_server.addresses["localhost"] = ["192.0.2.7", "2001:db8::7"]
    assert await direct.resolve("localhost", 8443) == [("2001:db8::7", 8443), ("192.0.2.7", 8443)]
    assert sorted(name_server.asked) == [("localhost", "A"), ("localhost", "AAAA")]


async def test_a_resolver_that_fails_leaves_the_last_answer(direct, name_server, counters):
    name_server.is_silent = True
    first = await direct.resolve("localhost", 443)
    assert await direct.resolve("localhost", 443) == first
    assert counters.dropped["dns-timeout"] >= 2
    name_server.is_silent = False
    assert await direct.resolve("localhost", 443) == first
    await asyncio.wait(list(direct._asking.values()))
    assert counters.dropped["dns-no-such-name"] == 2


async def test_nobody_waits_long_for_a_resolver_that_is_silent(direct, name_server, counters, monkeypatch):
    monkeypatch.setattr(road_resolver, "FRESH_WAIT", 0.01)
    direct._direct = UpstreamResolver([name_server.endpoint], counters=counters, timeout=60, attempts=1)
    first = await direct.resolve("localhost", 443)
    async with asyncio.timeout(30):  # of the 60 that the resolver would be given
        assert await direct.resolve("localhost", 443) == first
        assert await direct.resolve("localhost", 443) == first
    assert len(direct._asking) == 1, "one question at a time"


async def test_an_answer_that_came_late_serves_the_next_one(direct, name_server, monkeypatch):
    monkeypatch.setattr(road_resolver, "FRESH_WAIT", 0)
    first = await direct.resolve("localhost", 443)
    name_server.addresses["localhost"] = ["192.0.2.7"]
    assert await direct.resolve("localhost", 443) == first
    await asyncio.wait(list(direct._asking.values()))
    assert await direct.resolve("localhost", 443) == [("192.0.2.7", 443)]


async def test_a_new_answer_is_the_last_one_from_then_on(direct, name_server):
    await direct.resolve("localhost", 443)
    name_server.addresses["localhost"] = ["192.0.2.7"]
    await direct.resolve("localhost", 443)
    name_server.is_silent = True
    assert await direct.resolve("localhost", 443) == [("192.0.2.7", 443)]


async def test_without_resolvers_of_its_own_the_first_answer_stays(resolver):
    first = await resolver.resolve("localhost", 443)
    assert await resolver.resolve("localhost", 443) == first


async def test_a_name_that_nobody_knows_is_an_error(direct, name_server):
    with pytest.raises(RoadError, match=r"the name no-such-name\.invalid does not exist") as raised:
        await direct.resolve("no-such-name.invalid", 443)
    assert raised.value.reason == "name-not-resolved"
    assert not direct._last


async def test_a_machine_without_a_resolver_is_told_so(resolver, hanging):
    with pytest.raises(RoadError, match="this machine has no resolver"):
        await resolver.resolve("exit.test", 443)


async def test_resolvers_that_do_not_answer_are_named(direct, name_server, hanging):
    direct._servers = ("192.0.2.53",)
    with pytest.raises(RoadError, match=r"no resolver of this machine answers \(192.0.2.53\)"):
        await direct.resolve("silent.test", 443)


async def test_a_forwarder_whose_questions_are_refused_is_named(direct, name_server, hanging):
    direct._servers = ("127.0.0.1",)
    direct.host_is_taken()
    with pytest.raises(RoadError, match=r"questions of the forwarder 127.0.0.1 are refused"):
        await direct.resolve("silent.test", 443)


async def test_the_hosts_file_comes_first_every_time(direct, name_server, hosts):
    name_server.addresses["exit.test"] = ["192.0.2.7"]
    hosts.write_text("192.0.2.1 other.test EXIT.test. # ours\nfe80::1%lo exit.test\nnonsense exit.test\n")
    for _ in range(2):
        assert await direct.resolve("exit.test", 443) == [("192.0.2.1", 443), ("fe80::1%lo", 443)]
    hosts.write_text("192.0.2.2 exit.test\n")
    assert await direct.resolve("exit.test", 443) == [("192.0.2.2", 443)]
    assert name_server.asked == []
    hosts.unlink()
    direct.host_is_taken()
    assert await direct.resolve("exit.test", 443) == [("192.0.2.7", 443)]


async def test_what_an_earlier_process_found_is_used_when_nobody_answers(
    direct, name_server, hanging, counters, tmp_path
):
    AddressMemory(tmp_path).save("silent.test", ["192.0.2.9"])
    direct.host_is_taken()
    assert await direct.resolve("silent.test", 443) == [("192.0.2.9", 443)]
    assert counters.counted["road-addresses-remembered"] == 1
    name_server.addresses["silent.test"] = ["192.0.2.10"]
    direct._answers = True
    assert await direct.resolve("silent.test", 443) == [("192.0.2.10", 443)]
    assert AddressMemory(tmp_path).load("silent.test") == ["192.0.2.10"]


async def test_behind_a_forwarder_the_servers_it_asks_are_asked_too(resolver, monkeypatch):
    monkeypatch.setattr(road_resolver, "system_servers", lambda: ("127.0.0.1",))
    monkeypatch.setattr(road_resolver, "servers_behind", lambda: ("192.0.2.53",))
    await resolver.learn()
    assert resolver._direct._servers == [("127.0.0.1", 53), ("192.0.2.53", 53)]


async def test_only_so_many_names_are_remembered(resolver):
    resolver._last = {f"name{number}": ["192.0.2.1"] for number in range(MAX_NAMES)}
    await resolver.resolve("localhost", 443)
    assert len(resolver._last) == MAX_NAMES


@pytest.mark.parametrize("servers", [(), ("192.0.2.53", "2001:db8::53")])
async def test_learning_notes_the_hosts_resolvers(resolver, monkeypatch, servers):
    monkeypatch.setattr(road_resolver, "system_servers", lambda: servers)
    monkeypatch.setattr(road_resolver, "servers_behind", lambda: ())
    await resolver.learn()
    if servers:
        assert resolver._direct._servers == [("192.0.2.53", 53), ("2001:db8::53", 53)]
    else:
        assert resolver._direct is None
