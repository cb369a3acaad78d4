"""The resolver's configuration: plain files of every kind, and who rules them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.resolver import backends, resolv_conf_file

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
    assert resolv_conf_file.render(SERVERS, ORIGINAL).decode().splitlines()[1:] == [
        "nameserver 10.72.84.1",
        "nameserver fd72:84::1",
        "search lan example.org",
        "options ndots:2",
    ]
    assert resolv_conf_file.servers_in(ORIGINAL) == ["192.168.1.1", "fe80::1%eth0"]
    assert resolv_conf_file.servers_in(b"nameserver\nnameserver nonsense\n\xff\n") == []


def test_a_file_is_written_in_place_and_restored_to_the_byte(path: Path) -> None:
    inode = path.stat().st_ino
    ours = resolv_conf_file.render(SERVERS, ORIGINAL)
    assert resolv_conf_file.write(path, ours) is None
    assert path.read_bytes() == ours
    assert resolv_conf_file.restore(path, ORIGINAL) is None
    assert path.read_bytes() == ORIGINAL
    assert path.stat().st_ino == inode


def test_a_symbolic_link_stays_one(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    resolv_conf_file.write(link, resolv_conf_file.render(SERVERS, ORIGINAL))
    assert link.is_symlink() and path.read_bytes().startswith(resolv_conf_file.MARKER)
    resolv_conf_file.restore(link, ORIGINAL)
    assert link.is_symlink() and path.read_bytes() == ORIGINAL


def test_where_there_was_no_file_there_is_none_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "absent"
    assert resolv_conf_file.read(path) is None
    assert resolv_conf_file.write(path, resolv_conf_file.render(SERVERS, None)) is None
    assert resolv_conf_file.servers_in(path.read_bytes()) == list(SERVERS)
    assert resolv_conf_file.restore(path, None) is None
    assert not path.exists()
    assert resolv_conf_file.restore(path, None) is None


def test_a_file_that_was_not_there_is_readable_by_every_program(tmp_path: Path) -> None:
    path = tmp_path / "absent"
    before = os.umask(0o077)  # as systemd runs the daemon
    try:
        assert resolv_conf_file.write(path, resolv_conf_file.render(SERVERS, None)) is None
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_that_somebody_wrote_meanwhile_stays(path: Path) -> None:
    resolv_conf_file.write(path, resolv_conf_file.render(SERVERS, ORIGINAL))
    path.write_bytes(b"nameserver 192.0.2.1\n")
    assert resolv_conf_file.restore(path, ORIGINAL) is None
    assert path.read_bytes() == b"nameserver 192.0.2.1\n"


def test_what_somebody_else_writes_while_we_write_stays_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = b"nameserver 192.0.2.1\n"
    seen = []
    pwrite = os.pwrite

    def pwrite_and_then_the_other(descriptor: int, data: bytes, offset: int) -> int:
        written = pwrite(descriptor, data, offset)
        seen.append(path.read_bytes())
        path.write_bytes(foreign)
        return written

    path.write_bytes(ORIGINAL + b"\n#" + b"x" * 500)
    monkeypatch.setattr(os, "pwrite", pwrite_and_then_the_other)
    ours = resolv_conf_file.render(SERVERS, ORIGINAL)
    assert resolv_conf_file.write(path, ours) is None
    assert path.read_bytes() == foreign
    assert seen[0].rstrip(b"\n") == ours.rstrip(b"\n"), "no reader sees the rest of the old content"


def test_zeros_that_a_cut_has_left_are_not_content(path: Path) -> None:
    path.write_bytes(ORIGINAL + b"\0" * 80)
    backend = backends.choose("htvpn0", path)
    assert backend.apply("htvpn0", SERVERS) is None
    assert backend.undo("htvpn0") is None
    assert path.read_bytes() == ORIGINAL


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    warning = resolv_conf_file.write(tmp_path / "no" / "such" / "directory", b"")
    assert warning is not None
    assert warning.endswith(
        "could not be written (No such file or directory): the host keeps its own DNS servers."
    )


def test_a_file_that_cannot_be_kept_is_an_error(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"#" * (resolv_conf_file.MAX_RESOLV_CONF + 1))
    with pytest.raises(HostError, match="is longer than 65536 bytes"):
        resolv_conf_file.read(path)
    with pytest.raises(HostError, match="cannot be read"):
        resolv_conf_file.read(tmp_path)


def test_what_cannot_be_given_back_is_a_sentence(path: Path) -> None:
    path.write_bytes(resolv_conf_file.MARKER + b"#" * resolv_conf_file.MAX_RESOLV_CONF)
    problem = backends.FileBackend(path, ORIGINAL).undo("htvpn0")
    assert problem == f"{path} is longer than 65536 bytes: shorten it."


def test_the_systems_servers_are_known_unless_the_file_is_ours(path: Path) -> None:
    assert backends.system_servers(path) == ("192.168.1.1", "fe80::1%eth0")
    resolv_conf_file.write(path, resolv_conf_file.render(SERVERS, ORIGINAL))
    assert backends.system_servers(path) == ()


# --- who rules it, and who took it over -----------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "writer"),
    [
        (b"# Generated by NetworkManager\nnameserver 192.0.2.1\n", "NetworkManager"),
        (b"; Generated by dhcpcd from eth0.dhcp\nnameserver 192.0.2.1\n", "dhcpcd"),
        (b"# resolv.conf(5) file generated by tailscale\nnameserver 100.100.100.100\n", "Tailscale"),
        (b"# Dynamic resolv.conf(5) file for glibc resolver(3) generated by resolvconf(8)\n", "resolvconf"),
        (
            b"# This is /run/systemd/resolve/stub-resolv.conf managed by man:systemd-resolved(8).\n",
            "systemd-resolved",
        ),
        (None, "a program that removed it"),
    ],
)
def test_a_writer_is_known_by_the_comments(content: bytes | None, writer: str) -> None:
    assert resolv_conf_file.writer_of(content) == writer


def test_a_writer_who_leaves_no_name_is_guessed_from_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"nameserver 192.0.2.1\noptions edns0\n"
    for running, expected in (
        ({"bash", "dhclient"}, "another program, perhaps dhclient"),
        ({"NetworkManager", "dhclient"}, "another program, perhaps NetworkManager or dhclient"),
        ({"bash"}, "an unknown program"),
    ):
        monkeypatch.setattr(resolv_conf_file, "commands_here", lambda running=running: running)
        assert resolv_conf_file.writer_of(content) == expected


def test_a_command_may_have_any_name(tmp_path: Path) -> None:
    program = tmp_path / os.fsdecode(b"r\xe9solveur")  # Latin-1, as is whatever is cut within a character
    shutil.copy("/bin/cat", program)
    with subprocess.Popen([program], stdin=subprocess.PIPE):
        assert "r\ufffdsolveur" in resolv_conf_file.commands_here()


def test_a_stub_without_its_process_in_this_network_is_a_plain_file(path: Path) -> None:
    path.write_text("nameserver 127.0.0.53\n")
    backend = backends.choose("htvpn0", path)
    assert backend.step()["kind"] == "file"


def test_a_backend_comes_back_from_the_journal(path: Path) -> None:
    backend = backends.choose("htvpn0", path)
    assert backend.apply("htvpn0", SERVERS) is None
    again = backends.from_step(backend.step(), path)
    assert again.difference("htvpn0", SERVERS) is None
    assert again.own_servers("htvpn0") == ("192.168.1.1", "fe80::1%eth0")
    assert again.watched() == path
    path.write_bytes(b"# Generated by NetworkManager\nnameserver 192.0.2.1\n")
    assert again.difference("htvpn0", SERVERS) == f"{path} is not as the tunnel wrote it."
    assert again.taken_by() == "NetworkManager"
    again.adopt()
    assert again.apply("htvpn0", SERVERS) is None
    assert again.undo("htvpn0") is None
    assert path.read_bytes() == b"# Generated by NetworkManager\nnameserver 192.0.2.1\n"
