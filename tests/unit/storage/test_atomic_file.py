"""Files that are written as a whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from halftunnel_vpn.storage.atomic_file import create_at, create_file, remove_file, replace_file


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What is synced in which order: the name, and what its directory holds at that moment."""
    calls: list[tuple[str, list[str]]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        directory = path if path.is_dir() else path.parent
        calls.append((path.name, sorted(os.listdir(directory))))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return calls


def test_the_content_is_on_disk_before_the_name_and_the_name_before_the_call_returns(
    tmp_path: Path, synced: list[tuple[str, list[str]]]
) -> None:
    replace_file(tmp_path / "a.json", "one")
    draft = f".a.json.{threading.get_native_id()}.new"
    assert synced == [(draft, [draft]), (tmp_path.name, ["a.json"])]
    assert (tmp_path / "a.json").read_text() == "one"
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o600
    del synced[:]
    remove_file(tmp_path / "a.json")
    remove_file(tmp_path / "a.json")
    assert synced == [(tmp_path.name, [])]


def test_links_in_the_way_are_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    directory = tmp_path / "state"
    directory.mkdir()
    (directory / "a").symlink_to(victim)
    (directory / f".a.{threading.get_native_id()}.new").symlink_to(victim)
    replace_file(directory / "a", b"mine")
    assert victim.read_text() == "untouched"
    assert not (directory / "a").is_symlink() and (directory / "a").read_bytes() == b"mine"


def test_what_must_be_new_replaces_nothing(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        create_at(directory, "a", "one")
        with pytest.raises(FileExistsError):
            create_at(directory, "a", "two")
        (tmp_path / "b").symlink_to(tmp_path / "nowhere")
        with pytest.raises(FileExistsError):
            create_at(directory, "b", "two")
    finally:
        os.close(directory)
    assert (tmp_path / "a").read_text() == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"], "no draft stays"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "a", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_must_be_new_is_made_where_there_are_no_hard_links_too(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", no_link)  # as on FAT
    path = tmp_path / "profile.toml"
    create_file(path, "one")
    with pytest.raises(FileExistsError):
        create_file(path, "two")
    assert path.read_text() == "one" and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["profile.toml"]
