"""The allow-list: files that come, go, change their name and make no sense."""

from __future__ import annotations

import logging
import os
import resource
import time

import pytest

from halftunnel_vpn.protocol.keys import encode_key
from halftunnel_vpn.server.client_list import ClientList


def key(number):
    return bytes([number]) * 32


@pytest.fixture
def changes():
    """What the list was after each change, by name."""
    return []


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "clients"


@pytest.fixture
def clients(directory, changes):
    directory.mkdir()
    made = ClientList(directory, limit=100, changed=lambda: changes.append(names_in(made)))
    return made


def names_in(clients):
    return sorted(filter(None, (clients.listed(key(number)) for number in range(1, 9))))


@pytest.fixture
def admit(directory):
    def write(name, number, *, file=None):
        text = f'name = "{name}"\npublic_key = "{encode_key(key(number))}"\n'
        (directory / (file or f"{name}.toml")).write_text(text)

    return write


def test_clients_are_found_as_soon_as_they_are_admitted(clients, admit):
    assert clients.name_of(key(1)) is None and len(clients) == 0
    admit("laptop", 1)
    assert clients.name_of(key(1)) == "laptop"
    admit("phone", 2)
    assert (clients.name_of(key(1)), clients.name_of(key(2)), len(clients)) == ("laptop", "phone", 2)
    assert clients.name_of(key(3)) is None


def test_a_removal_is_reported_at_once(clients, admit, directory, changes):
    admit("laptop", 1)
    admit("phone", 2)
    clients.refresh()
    (directory / "laptop.toml").unlink()
    clients.refresh()
    assert changes[-1] == ["phone"]
    assert clients.name_of(key(1)) is None and clients.name_of(key(2)) == "phone"


def test_a_change_within_one_tick_of_the_clock_is_seen(clients, admit, directory):
    admit("laptop", 1)
    tick = time.time_ns()
    os.utime(directory, ns=(tick, tick))
    clients.refresh()
    (directory / "laptop.toml").unlink()
    os.utime(directory, ns=(tick, tick))
    assert clients.name_of(key(1)) is None


def settle(*paths):
    """Make the files look as if their last change was long ago."""
    long_ago = time.time_ns() - 10_000_000_000
    for path in paths:
        os.utime(path, ns=(long_ago, long_ago))


def test_a_file_that_is_rewritten_in_place_is_read_again(clients, admit, directory, changes):
    admit("laptop", 1)
    settle(directory, directory / "laptop.toml")
    assert clients.name_of(key(1)) == "laptop"
    admit("laptop", 2)  # the same file, the same length: the directory does not change
    assert clients.name_of(key(1)) is None, "the old key opens nothing"
    assert clients.listed(key(2)) == "laptop" and len(changes) == 2


def test_a_new_key_in_an_old_file_is_found(clients, admit, directory):
    admit("laptop", 1)
    settle(directory, directory / "laptop.toml")
    clients.refresh()
    admit("laptop", 2)
    clients.refresh()
    assert clients.name_of(key(2)) == "laptop" and clients.name_of(key(1)) is None


def test_a_change_of_a_file_within_one_tick_of_the_clock_is_seen(clients, admit, directory):
    tick = time.time_ns()
    for number in (1, 2):
        admit("laptop", number)
        os.utime(directory / "laptop.toml", ns=(tick, tick))
        settle(directory)
        clients.refresh()
    assert clients.name_of(key(1)) is None and clients.name_of(key(2)) == "laptop"


@pytest.mark.parametrize("copy", ["laptop_old", "laptop~", "laptop.sync-conflict-20261129-101010-ABC"])
def test_a_copy_of_a_file_admits_nobody(clients, admit, directory, caplog, copy):
    """A key that was replaced, and a client that was disabled or removed, must not come back by a copy."""
    admit("laptop", 1, file=f"{copy}.toml")
    admit("laptop", 2)
    assert clients.name_of(key(1)) is None and clients.name_of(key(2)) == "laptop"
    assert clients.file_of("laptop") == directory / "laptop.toml"
    assert f"{copy}.toml has the name laptop, whose file is laptop.toml; remove it" in caplog.text
    (directory / "laptop.toml").unlink()
    assert clients.name_of(key(2)) is None and "laptop" not in clients.entries


def test_files_that_have_not_changed_are_not_opened(clients, admit, directory):
    for number in range(1, 4):
        admit(f"c{number}", number)
    settle(directory, *directory.iterdir())
    clients.refresh()
    admit("c9", 4)
    known = dict(clients._files)
    settle(directory)
    clients.refresh()
    assert all(clients._files[name] is known[name] for name in ("c2.toml", "c3.toml"))
    assert names_in(clients) == ["c1", "c2", "c3", "c9"]


def test_one_file_that_cannot_be_looked_at_does_not_keep_the_others_listed(clients, admit, directory):
    admit("laptop", 1)
    admit("phone", 2)
    clients.refresh()
    (directory / "loop.toml").symlink_to("loop.toml")  # ELOOP
    (directory / "laptop.toml").unlink()
    assert clients.name_of(key(1)) is None and clients.name_of(key(2)) == "phone"


def test_a_client_with_a_new_key_or_a_new_name_is_another_one(clients, admit, directory):
    admit("laptop", 1)
    admit("phone", 2)
    clients.refresh()
    admit("laptop", 3)
    (directory / "phone.toml").unlink()
    admit("tablet", 2)
    clients.refresh()
    assert clients.name_of(key(1)) is None
    assert clients.name_of(key(3)) == "laptop" and clients.name_of(key(2)) == "tablet"


def test_a_directory_that_vanishes_takes_everybody_along_until_it_is_back(clients, admit, directory, changes):
    admit("laptop", 1)
    clients.refresh()
    (directory / "laptop.toml").unlink()
    directory.rmdir()
    assert clients.name_of(key(1)) is None and changes == [["laptop"], []]
    directory.mkdir()
    admit("laptop", 1)
    assert clients.name_of(key(1)) == "laptop"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b'name = "x"',
        b'name = "x"\npublic_key = "short"',
        b"[" * 100,
        b'name = "../x"\npublic_key = ""',
    ],
)
def test_a_file_that_makes_no_sense_is_left_out_and_told(clients, admit, directory, caplog, content):
    (directory / "broken.toml").write_bytes(content)
    admit("laptop", 1)
    with caplog.at_level(logging.WARNING, "halftunnel_vpn"):
        assert clients.name_of(key(1)) == "laptop"
    assert len(clients) == 1
    (line,) = caplog.messages
    assert line.startswith("a client file is ignored: ") and "broken.toml" in line


def test_a_file_that_cannot_be_read_is_left_out_and_told(clients, admit, directory, caplog):
    (directory / "folder.toml").mkdir()
    admit("laptop", 1)
    with caplog.at_level(logging.WARNING, "halftunnel_vpn"):
        assert clients.name_of(key(1)) == "laptop"
    assert len(caplog.messages) == 1


def test_other_files_are_not_looked_at(clients, admit, directory, caplog):
    for name in (".laptop.toml.123", "laptop.toml~", "README"):
        (directory / name).write_text("nonsense")
    admit("laptop", 1)
    assert clients.name_of(key(1)) == "laptop" and not caplog.messages


def test_the_list_has_a_bound(directory, admit, caplog):
    directory.mkdir()
    clients = ClientList(directory, limit=3, changed=lambda: None)
    for number in range(1, 6):
        admit(f"c{number}", number)
    with caplog.at_level(logging.WARNING, "halftunnel_vpn"):
        clients.refresh()
    assert len(clients) == 3 and clients.name_of(key(5)) is None
    assert "more than 3 clients" in caplog.messages[0]


def test_a_directory_that_cannot_be_looked_at_cuts_nobody_off(clients, admit, directory, changes, caplog):
    admit("laptop", 1)
    clients.refresh()
    aside = directory.with_name("aside")
    directory.rename(aside)
    directory.symlink_to(directory)  # ELOOP
    for _ in range(3):
        assert clients.name_of(key(1)) == "laptop"
    assert changes == [["laptop"]] and caplog.text.count("the list of clients stays as it is") == 1
    directory.unlink()
    aside.rename(directory)
    (directory / "laptop.toml").unlink()
    assert clients.name_of(key(1)) is None and changes == [["laptop"], []]


def test_a_moment_without_descriptors_cuts_nobody_off(clients, admit, directory, changes):
    admit("laptop", 1)
    clients.refresh()
    admit("phone", 2)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert clients.name_of(key(1)) == "laptop" and clients.name_of(key(2)) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert clients.name_of(key(2)) == "phone" and changes == [["laptop"], ["laptop", "phone"]]
