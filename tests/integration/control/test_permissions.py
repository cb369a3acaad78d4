"""Who may use the control socket, by the kernel's word: real processes of other users."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import stat
import subprocess

import pytest

from halftunnel_vpn.control.control_service import ControlService
from halftunnel_vpn.control.peer import Peer, may_control
from halftunnel_vpn.control.unix_socket import claim

STRANGER = 65534
GROUP = "users"


async def ask_as(path, *, group: int, groups: list[int]) -> tuple[int, dict]:
    """Status and JSON of what a process of the user STRANGER is answered."""
    command = ["curl", "-s", "-w", "\n%{http_code}", "--unix-socket", str(path), "http://x/v1/status"]
    done = await asyncio.to_thread(
        subprocess.run, command,
        user=STRANGER, group=group, extra_groups=groups,
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    body, _, code = done.stdout.rpartition("\n")
    return int(code), json.loads(body)


@pytest.mark.root
async def test_members_of_the_group_may_and_strangers_may_not(serve_daemon, tmp_path, let_others_enter):
    users = grp.getgrnam(GROUP).gr_gid
    let_others_enter(tmp_path)
    path = tmp_path / "control.sock"
    async with serve_daemon(group=GROUP):
        os.chmod(path, 0o666)  # what the file's mode would keep away, the credentials must
        code, told = await ask_as(path, group=STRANGER, groups=[])
        assert (code, told) == (403, {"error": "only root and members of the group users may use htvpn here"})
        assert (await ask_as(path, group=STRANGER, groups=[users]))[0] == 200
        assert (await ask_as(path, group=STRANGER, groups=[*range(1000, 1200), users]))[0] == 200
        assert (await ask_as(path, group=STRANGER, groups=[*range(1000, 1400), users]))[0] == 403
        assert (await ask_as(path, group=users, groups=[]))[0] == 200
        command = ["curl", "-s", "--unix-socket", str(path), "http://x/v1/status"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=30, check=True)
        assert json.loads(done.stdout)["state"] == "disconnected"


def test_without_the_group_only_root_may():
    assert may_control(Peer(1, 0, 0, frozenset()), "no-such-group-here")
    assert may_control(Peer(1, os.geteuid(), 0, frozenset()), "no-such-group-here")
    assert not may_control(Peer(1, 12345, 0, frozenset({0, 1})), "no-such-group-here")
    assert not may_control(None)


@pytest.mark.root
async def test_the_socket_is_for_root_and_one_group(tmp_path):
    users = grp.getgrnam(GROUP).gr_gid
    service = ControlService({})
    await service.serve_unix(str(tmp_path / "control.sock"), group=users)
    found = os.stat(tmp_path / "control.sock")
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, users)
    await service.close()


async def test_a_socket_that_was_made_by_somebody_else_is_served_and_left(tmp_path):
    path = tmp_path / "control.sock"
    listener = claim(str(path))
    listener.listen()
    service = ControlService({})
    await service.serve_socket(listener)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
    writer.close()
    await service.close()
    assert path.exists()
