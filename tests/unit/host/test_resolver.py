"""The resolver's configuration: plain files of every kind, and systemd-resolved by its command."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host import resolver

ORIGINAL = (
    b"# by hand\nsearch lan example.org\nnameserver 192.168.1.1\noptions ndots:2\nnameserver fe80::1%eth0"
)
SERVERS = ("10.72.84.1", "fd72:84::1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "resolv.conf"
    made.write_bytes(ORIGINAL)
    return made


def test_ours_names_the_tunnels_servers_and_keeps_the_search_list(path: Path) -> None:
    assert resolver.render(SERVERS, ORIGINAL).decode().splitlines()[1:] == [
        "nameserver 10.72.84.1",
        "nameserver fd72:84::1",
        "search lan example.org",
        "options ndots:2",
    ]
    assert resolver.servers_in(ORIGINAL) == ["192.168.1.1", "fe80::1"]
    assert resolver.servers_in(b"nameserver\nnameserver nonsense\n\xff\n") == []


def test_a_file_is_written_in_place_and_restored_to_the_byte(path: Path) -> None:
    inode = path.stat().st_ino
    ours = resolver.render(SERVERS, ORIGINAL)
    assert resolver.write(path, ours) is None
    assert path.read_bytes() == ours
    assert resolver.restore(path, ORIGINAL) is None
    assert path.read_bytes() == ORIGINAL
    assert path.stat().st_ino == inode


def test_a_symbolic_link_stays_one(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    resolver.write(link, resolver.render(SERVERS, ORIGINAL))
    assert link.is_symlink() and path.read_bytes().startswith(resolver.MARKER)
    resolver.restore(link, ORIGINAL)
    assert link.is_symlink() and path.read_bytes() == ORIGINAL


def test_where_there_was_no_file_there_is_none_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "absent"
    assert resolver.read(path) is None
    assert resolver.write(path, resolver.render(SERVERS, None)) is None
    assert resolver.servers_in(path.read_bytes()) == list(SERVERS)
    assert resolver.restore(path, None) is None
    assert not path.exists()
    assert resolver.restore(path, None) is None


def test_a_file_that_somebody_wrote_meanwhile_stays(path: Path) -> None:
    resolver.write(path, resolver.render(SERVERS, ORIGINAL))
    path.write_bytes(b"nameserver 192.0.2.1\n")
    assert resolver.restore(path, ORIGINAL) is None
    assert path.read_bytes() == b"nameserver 192.0.2.1\n"


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    warning = resolver.write(tmp_path / "no" / "such" / "directory", b"")
    assert warning is not None
    assert warning.endswith(
        "could not be written (No such file or directory): the host keeps its own DNS servers."
    )


def test_a_file_that_cannot_be_kept_is_an_error(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"#" * (resolver.MAX_RESOLV_CONF + 1))
    with pytest.raises(HostError, match="is longer than 65536 bytes"):
        resolver.read(path)
    with pytest.raises(HostError, match="cannot be read"):
        resolver.read(tmp_path)


def test_the_systems_servers_are_known_unless_the_file_is_ours(path: Path) -> None:
    assert resolver.system_servers(path) == ("192.168.1.1", "fe80::1")
    resolver.write(path, resolver.render(SERVERS, ORIGINAL))
    assert resolver.system_servers(path) == ()


# --- systemd-resolved: a command that notes what it was told, and a process of the daemon's name --


@pytest.fixture
def resolvectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for resolvectl; the file in which it notes its arguments."""
    notes = tmp_path / "notes"
    program = tmp_path / "bin" / "resolvectl"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$*" >>{notes}\n'
        'if [ "$1 $#" = "dns 2" ]; then echo "Link 7 ($2): 10.72.84.1 fd72:84::1"; fi\n'
        'if [ "$2" = broken ]; then echo "Failed to set DNS: refused" >&2; exit 1; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return notes


@pytest.fixture
def resolved(tmp_path: Path) -> Iterator[None]:
    """A process that the kernel knows as systemd-resolve(d)."""
    program = tmp_path / "systemd-resolved"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"]) as process:
        while Path(f"/proc/{process.pid}/comm").read_text() != "systemd-resolve\n":
            pass  # between fork and exec
        yield
        process.terminate()


def test_resolved_is_seen_by_its_stub_its_command_and_its_process(
    path: Path, resolvectl: Path, resolved: None
) -> None:
    assert not resolver.uses_resolved(path), "the file names another server"
    path.write_text("nameserver 127.0.0.53\noptions edns0\n")
    assert resolver.uses_resolved(path)


def test_a_stub_without_its_process_in_this_network_is_a_plain_file(path: Path, resolvectl: Path) -> None:
    path.write_text("nameserver 127.0.0.53\n")
    assert not resolver.uses_resolved(path)


def test_resolved_gets_the_tunnel_as_the_way_for_every_name(resolvectl: Path) -> None:
    assert resolver.set_resolved("tun9", SERVERS) is None
    assert resolvectl.read_text().splitlines() == [
        "dns tun9 10.72.84.1 fd72:84::1",
        "domain tun9 ~.",
        "default-route tun9 yes",
        "llmnr tun9 no",
        "mdns tun9 no",
    ]
    assert resolver.resolved_servers("tun9") == list(SERVERS)
    resolver.revert_resolved("tun9")
    assert resolvectl.read_text().splitlines()[-1] == "revert tun9"


def test_a_resolved_that_refuses_is_a_warning(resolvectl: Path) -> None:
    warning = resolver.set_resolved("broken", SERVERS)
    assert warning == "systemd-resolved did not take the tunnel's servers: Failed to set DNS: refused"


def test_no_resolvectl_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    warning = resolver.set_resolved("tun9", SERVERS)
    assert warning == "systemd-resolved did not take the tunnel's servers: resolvectl is not installed."
    assert resolver.resolved_servers("tun9") == []
