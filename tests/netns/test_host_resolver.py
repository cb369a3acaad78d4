"""The resolver's part of a tunnel's state where /etc/resolv.conf is no plain file, or none to rely on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from halftunnel_vpn.host import HostNetwork, HostState
from halftunnel_vpn.host.resolver import MARKER
from halftunnel_vpn.lab import Lab
from halftunnel_vpn.tun import TunDevice

pytestmark = pytest.mark.root

Network = Callable[[HostState], HostNetwork]

STATE = HostState(addresses=("10.72.84.2/32",), dns=("10.72.84.1",))


@pytest.fixture
def resolved(client: Lab, resolv_conf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the tunnel sees of systemd-resolved: its stub, its command, its process. The link's servers."""
    resolv_conf.write_text("nameserver 127.0.0.53\n")
    servers = client.directory / "servers"
    programs = client.directory / "bin"
    programs.mkdir()
    (programs / "resolvectl").write_text(
        "#!/bin/sh\n"
        'case "$1 $#" in\n'
        f'"dns 2") printf "Link 7 ($2): %s\\n" "$(cat {servers})" ;;\n'
        f'dns*) shift 2; echo "$*" >{servers} ;;\n'
        f"revert*) rm {servers} ;;\n"
        "esac\n"
    )
    (programs / "resolvectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    shutil.copy(shutil.which("sleep") or "", programs / "systemd-resolved")
    with subprocess.Popen([programs / "systemd-resolved", "60"]) as process:
        while Path(f"/proc/{process.pid}/comm").read_text() != "systemd-resolve\n":
            pass  # between fork and exec
        yield servers
        process.terminate()


def test_systemd_resolved_is_told_and_its_file_left_alone(
    device: TunDevice, network: Network, resolv_conf: Path, resolved: Path
) -> None:
    tunnel = network(STATE)
    assert tunnel.apply() == []
    assert resolved.read_text() == "10.72.84.1\n"
    assert tunnel.verify() == []
    assert tunnel.apply() == []
    resolved.write_text("192.0.2.1\n")
    assert tunnel.verify() == ["systemd-resolved does not have the tunnel's servers for htvpn0."]
    assert tunnel.apply() == []
    assert resolved.read_text() == "10.72.84.1\n"
    tunnel.cleanup()
    assert not resolved.exists()
    assert resolv_conf.read_text() == "nameserver 127.0.0.53\n"


def test_a_file_that_cannot_be_written_is_a_warning_and_the_tunnel_stands(
    lab: Lab, device: TunDevice
) -> None:
    tunnel = HostNetwork(STATE, lab.directory / "state", resolv_conf=Path("/proc/version"))
    (warning,) = tunnel.apply()
    assert warning.startswith("/proc/version could not be written (")
    assert tunnel.verify() == ["/proc/version is not as the tunnel wrote it."]
    tunnel.cleanup()


def test_a_file_of_ours_without_its_original_is_a_warning(
    device: TunDevice, network: Network, resolv_conf: Path
) -> None:
    left = MARKER + b"nameserver 10.1.1.1\n"
    resolv_conf.write_bytes(left)
    (warning,) = network(STATE).apply()
    assert "still names an earlier tunnel's servers and its original is lost" in warning
    network(STATE).cleanup()
    assert resolv_conf.read_bytes() == left


def test_the_original_is_the_latest_that_somebody_else_wrote(
    device: TunDevice, network: Network, resolv_conf: Path
) -> None:
    tunnel = network(STATE)
    tunnel.apply()
    resolv_conf.write_text("nameserver 192.0.2.7\n")  # a DHCP client, say
    assert tunnel.apply() == []
    assert tunnel.verify() == []
    tunnel.cleanup()
    assert resolv_conf.read_text() == "nameserver 192.0.2.7\n"


def test_a_state_without_servers_gives_the_file_back(
    device: TunDevice, network: Network, resolv_conf: Path
) -> None:
    original = resolv_conf.read_text()
    network(STATE).apply()
    network(replace(STATE, dns=None)).apply()
    assert resolv_conf.read_text() == original
    network(STATE).cleanup()
