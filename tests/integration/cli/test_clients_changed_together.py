"""Several operators change the clients of an exit at the same time: no change is lost."""

from __future__ import annotations

import fcntl
import io
import os
import sys
import threading

import pytest

from halftunnel_vpn.cli import main
from halftunnel_vpn.config.clients import parse_client_entry
from halftunnel_vpn.control.owned_directory import OwnedDirectory
from halftunnel_vpn.errors import ConfigError, HostError

INIT = (
    "server init --upstream wss://127.0.0.1:41443 --downstream wss://127.0.0.2:41444 "
    "--listen-upstream 127.0.0.1:41443 --listen-downstream 127.0.0.2:41444 --dir"
)


@pytest.fixture
def directory(tmp_path):
    exit_ = tmp_path / "x"
    assert main.main([*INIT.split(), str(exit_)]) == 0
    words = ["server", "add-client", "alice", "--dir", str(exit_), "--output", str(tmp_path / "alice.toml")]
    assert main.main(words) == 0
    return exit_


class SlowOutput(io.StringIO):
    """Takes the profile, while another operator runs a command."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self._words = words

    def write(self, text: str) -> int:
        words, self._words = self._words, ()
        if words:
            assert main.main([*words]) == 0
        return super().write(text)


def test_a_client_that_is_disabled_while_its_key_is_rotated_stays_disabled(directory, monkeypatch):
    file = directory / "clients" / "alice.toml"
    before = parse_client_entry(file.read_text(), source="test")
    other = ["server", "client", "alice", "disable", "--dir", str(directory)]
    monkeypatch.setattr(sys, "stdout", SlowOutput(*other))
    assert main.main(["server", "client", "alice", "rotate-key", "--dir", str(directory)]) == 0
    entry = parse_client_entry(file.read_text(), source="test")
    assert entry.disabled and entry.public_key != before.public_key


def test_a_client_that_is_removed_while_its_key_is_rotated_stays_removed(directory, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "stdout", SlowOutput("server", "remove-client", "alice", "--dir", str(directory))
    )
    assert main.main(["server", "client", "alice", "rotate-key", "--dir", str(directory)]) != 0
    assert "this exit has no client alice" in capsys.readouterr().err
    assert not (directory / "clients" / "alice.toml").exists()


def test_changes_at_the_same_time_are_all_kept(tmp_path):
    (tmp_path / "count").write_text("0")

    def count() -> None:
        with OwnedDirectory.open(tmp_path, missing="gone") as files:
            for _ in range(25):
                files.change("count", lambda text: str(int(text) + 1), missing="gone")

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (tmp_path / "count").read_text() == "75"


def test_an_exit_does_not_wait_for_a_program_that_holds_the_lock(tmp_path):
    (tmp_path / "a").write_text("1")
    held = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with OwnedDirectory.open(tmp_path, missing="gone", own_rights=True) as files:
        with pytest.raises(HostError, match=r"another program changes .* at this moment; try again"):
            files.change("a", lambda text: "2", missing="gone")
        with pytest.raises(HostError, match="try again"):
            files.remove("a")
        os.close(held)
        files.change("a", lambda text: text + "2", missing="gone")
        with pytest.raises(ConfigError, match="gone"):
            files.change("b", lambda text: text, missing="gone")
    assert (tmp_path / "a").read_text() == "12"
