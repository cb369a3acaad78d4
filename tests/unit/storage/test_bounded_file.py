"""Files that somebody else may have put there, and what reads them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from halftunnel_vpn.cli.server_directory import load, open_directory
from halftunnel_vpn.errors import ConfigError, HostError
from halftunnel_vpn.server.client_list import MAX_CLIENT_FILE, ClientList
from halftunnel_vpn.server.exit_files import read_keys
from halftunnel_vpn.storage.bounded_file import read_regular
from halftunnel_vpn.transport.certificate_store import CertificateFiles, CertificateStore
from halftunnel_vpn.transport.decoy_site import Site

PATIENCE = 20.0


def read_by_root(path: Path) -> str:
    """As `add-client` does."""
    with open_directory(path.parent) as directory:
        return directory.read_text(path.name)


READERS = {
    "the configuration": lambda path: load(path.parent),
    "the configuration, by root": read_by_root,
    "the key": read_keys,
    "a certificate": lambda path: CertificateStore([CertificateFiles(path, path)]),
    "a page": Site.read,
    "the clients": lambda path: ClientList(path.parent, limit=9, changed=lambda: None).refresh(),
}


def result_of(work) -> object:
    """What ``work`` returns or raises; it must not wait for anything."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert found, "it still waits"
    return found[0]


@pytest.mark.parametrize("what", READERS)
def test_a_pipe_where_a_file_should_be_is_refused_at_once(tmp_path: Path, what: str) -> None:
    path = tmp_path / "server.toml"
    os.mkfifo(path)
    answer = result_of(lambda: READERS[what](path))
    assert answer is None if what == "the clients" else isinstance(answer, (ConfigError, HostError, OSError))


@pytest.mark.parametrize("what", READERS)
def test_a_file_of_gigabytes_is_refused_unread(tmp_path: Path, what: str) -> None:
    path = tmp_path / "server.toml"
    path.touch()
    os.truncate(path, 1 << 40)
    answer = result_of(lambda: READERS[what](path))
    assert answer is None if what == "the clients" else isinstance(answer, (ConfigError, HostError, OSError))


def test_what_is_read_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * MAX_CLIENT_FILE)
    assert read_regular(path, MAX_CLIENT_FILE) == b"x" * MAX_CLIENT_FILE
    with pytest.raises(OSError, match="More than 100 bytes"):
        read_regular(path, 100)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, 100)


def test_the_certificate_for_strangers_needs_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may have no place to write at all."""
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/nonexistent"])
    monkeypatch.setattr("tempfile.tempdir", None)
    assert CertificateStore([]).context_for("127.0.0.1").sni_callback is not None
