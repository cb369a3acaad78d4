"""The journal: on disk before a change, whole at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host import HostState
from halftunnel_vpn.host.journal import Journal, path_of

STATE = HostState(addresses=("10.72.84.2/32",), dns=("10.72.84.1",))


def test_what_is_recorded_is_on_disk_at_once(tmp_path: Path) -> None:
    journal = Journal.new(tmp_path / "state", STATE)
    assert Journal.load(journal.path) is None
    journal.record("resolver", kind="file", original=None)
    loaded = Journal.load(journal.path)
    assert loaded is not None
    assert loaded.here
    assert loaded.state == STATE
    assert loaded.steps == {"resolver": {"kind": "file", "original": None}}
    assert list((tmp_path / "state").iterdir()) == [path_of(tmp_path / "state", "htvpn0")]


def test_what_is_recorded_again_is_not_written_again(tmp_path: Path) -> None:
    journal = Journal.new(tmp_path, STATE)
    journal.record("device")
    before = journal.path.stat().st_ino
    journal.record("device")
    assert journal.path.stat().st_ino == before
    journal.record("sysctl", original="0")
    assert journal.path.stat().st_ino != before


def test_a_discarded_journal_is_gone(tmp_path: Path) -> None:
    journal = Journal.new(tmp_path, STATE)
    journal.record("device")
    journal.discard()
    journal.discard()
    assert Journal.load(journal.path) is None


def test_a_journal_of_another_boot_says_so(tmp_path: Path) -> None:
    journal = Journal.new(tmp_path, STATE)
    journal.record("device")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    journal.path.write_text(journal.path.read_text().replace(boot, "another"))
    loaded = Journal.load(journal.path)
    assert loaded is not None
    assert not loaded.here


def test_a_state_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal.new(tmp_path / "file", STATE)
    with pytest.raises(HostError, match=r"The journal .* cannot be written"):
        journal.record("device")
