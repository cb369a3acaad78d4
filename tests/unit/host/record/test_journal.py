"""The journal: on disk before a change, whole at any moment."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host import HostState
from halftunnel_vpn.host.record.journal import Journal, path_of

STATE = HostState(addresses=("10.72.84.2/32",), dns=("10.72.84.1",))


def test_what_is_recorded_is_on_disk_at_once(tmp_path: Path) -> None:
    journal = Journal.new(tmp_path / "state", STATE)
    assert Journal.load(journal.path) is None
    journal.record("resolver", kind="file", original=None)
    loaded = Journal.load(journal.path)
    assert loaded is not None
    assert loaded.is_current
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


def test_its_name_is_on_disk_too_when_it_is_written_and_when_it_is_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.new(tmp_path, STATE)
    synced: list[tuple[str, bool]] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), journal.path.exists()))

    monkeypatch.setattr(os, "fsync", noted)
    journal.record("device")
    assert synced[-1] == (str(tmp_path), True)
    journal.discard()
    assert synced[-1] == (str(tmp_path), False)


def test_a_journal_of_another_boot_says_so(tmp_path: Path) -> None:
    journal = Journal.new(tmp_path, STATE)
    journal.record("device")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    journal.path.write_text(journal.path.read_text().replace(boot, "another"))
    loaded = Journal.load(journal.path)
    assert loaded is not None
    assert not loaded.is_current


def test_a_state_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal.new(tmp_path / "file", STATE)
    with pytest.raises(HostError, match=r"The journal .* cannot be written"):
        journal.record("device")


def test_a_full_disk_costs_nothing_that_was_there(tmp_path: Path) -> None:
    journal = Journal.new(tmp_path, STATE)
    journal.record("device")
    before = journal.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    heeded = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), limits[1]))  # File too large, as ENOSPC comes
    try:
        with pytest.raises(HostError, match=r"The journal .* cannot be written \(File too large\)"):
            journal.record("resolver", kind="file", original="x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, heeded)
    assert journal.path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [journal.path]
