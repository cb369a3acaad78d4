"""A file of the state directory that has not changed is not written: a full disk hinders nothing then."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.record import journal
from halftunnel_vpn.host.record.journal import write_atomically


def full(path: Path, text: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_there_already_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, "one")
    monkeypatch.setattr(journal, "replace_file", full)
    write_atomically(path, "one")
    with pytest.raises(HostError, match="No space left"):
        write_atomically(path, "two")
    assert path.read_text() == "one"
