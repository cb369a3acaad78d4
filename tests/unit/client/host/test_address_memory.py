"""The last addresses of the roads' names, on disk."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from halftunnel_vpn.client.host.address_memory import FILE, MAX_ADDRESSES, MAX_NAMES, AddressMemory


@pytest.fixture
def memory(tmp_path):
    return AddressMemory(tmp_path)


def test_what_was_saved_is_there_after_a_restart(memory, tmp_path):
    memory.save("a.test", ["192.0.2.1", "fe80::1%eth0"])
    memory.save("b.test", ["192.0.2.2"])
    assert AddressMemory(tmp_path).load("a.test") == ["192.0.2.1", "fe80::1%eth0"]
    assert memory.load("b.test") == ["192.0.2.2"] and memory.load("c.test") == []


def test_names_saved_at_the_same_time_are_all_kept(memory):
    names = [f"{number}.test" for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: memory.save(name, ["192.0.2.1"]), names))
    assert [memory.load(name) for name in names] == [["192.0.2.1"]] * 20


def test_the_oldest_name_goes_first_and_addresses_are_bounded(memory, tmp_path):
    full = {f"{number}.test": ["192.0.2.1"] for number in range(MAX_NAMES)}
    (tmp_path / FILE).write_text(json.dumps(full))
    for number in (MAX_NAMES, MAX_NAMES + 1):
        memory.save(f"{number}.test", ["192.0.2.1"] * (MAX_ADDRESSES + 1))
    assert memory.load("1.test") == [] and memory.load("2.test") == ["192.0.2.1"]
    assert len(memory.load(f"{MAX_NAMES}.test")) == MAX_ADDRESSES


@pytest.mark.parametrize("content", ["", "[1]", '{"a.test": 1}', '{"a.test": ["nonsense"]}', "[" * 9999])
def test_a_spoilt_file_is_begun_again_and_told_once(memory, tmp_path, caplog, content):
    (tmp_path / FILE).write_text(content)
    assert memory.load("a.test") == [] and memory.load("a.test") == []
    assert len(caplog.records) == 1
    memory.save("a.test", ["192.0.2.1"])
    assert json.loads((tmp_path / FILE).read_text()) == {"a.test": ["192.0.2.1"]}
