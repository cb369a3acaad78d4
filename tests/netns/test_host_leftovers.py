"""A tunnel that was killed leaves a host that the next start, or a command, puts right."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lab import Lab
from lab.host_tunnel import HostTunnel
from lab.topology import CLIENT

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host import Desired, Host, HostState, TrafficPolicy
from halftunnel_vpn.host.resolver.resolv_conf_file import MAX_RESOLV_CONF
from halftunnel_vpn.tun import TunDevice

pytestmark = pytest.mark.root

Snapshot = Callable[[], dict[str, str]]
Network = Callable[[HostState], HostTunnel]

STATE = HostState(addresses=("10.72.84.2/32", "fd72:84::2/128"), dns=("10.72.84.1",))

TUNNEL = """
import sys
from pathlib import Path
from halftunnel_vpn.host import Desired, Host, HostState
from halftunnel_vpn.tun import TunDevice
device = TunDevice.open("htvpn0", mtu=1500)
state = HostState(addresses=("10.72.84.2/32", "fd72:84::2/128"), dns=("10.72.84.1",))
print(Host(Path(sys.argv[1]), resolv_conf=Path(sys.argv[2])).apply(Desired(state)), flush=True)
sys.stdin.read()
"""
CLEANUP = """
import sys
from pathlib import Path
from halftunnel_vpn.host import Host
print(Host(Path(sys.argv[1])).recover(None))
"""


@pytest.fixture
def state_dir(lab: Lab) -> Path:
    return lab.directory / "state"


@pytest.fixture
def kill_tunnel(client: Lab, state_dir: Path, resolv_conf: Path) -> Callable[..., None]:
    """Bring a tunnel up in a process of its own and kill that."""

    def kill(path: Path = resolv_conf) -> None:
        command = [sys.executable, "-W", "error", "-c", TUNNEL, str(state_dir), str(path)]
        argv = client.argv(CLIENT, command)
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=client.environment()
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "[]\n", "no warnings"
            process.send_signal(signal.SIGKILL)

    return kill


def test_a_killed_tunnel_leaks_nothing_and_is_cleaned_up_after(
    client: Lab, snapshot: Snapshot, state_dir: Path, kill_tunnel: Callable[..., None]
) -> None:
    before = snapshot()
    kill_tunnel(Path("/etc/resolv.conf"))  # in the client: a bind mount
    killed = snapshot()
    assert "htvpn0" not in killed["ip address"]
    assert "Half-Tunnel wrote this file" in killed["resolv.conf"]
    refused = client.run(CLIENT, "ip route get 198.51.100.2".split(), check=False)
    assert "No route to host" in refused.stderr

    assert client.python(CLIENT, CLEANUP, str(state_dir)).stdout == "['htvpn0']\n"
    assert snapshot() == before
    assert list(state_dir.iterdir()) == []
    assert client.python(CLIENT, CLEANUP, str(state_dir)).stdout == "[]\n"
    assert snapshot() == before


def test_the_state_alone_undoes_what_a_killed_tunnel_left(
    client: Lab, snapshot: Snapshot, network: Network, kill_tunnel: Callable[..., None]
) -> None:
    before = snapshot()
    kill_tunnel()
    assert network(STATE).host.recover(None) == ["htvpn0"]
    assert snapshot() == before


def test_a_tunnel_that_lives_is_left_alone(
    client: Lab, snapshot: Snapshot, state_dir: Path, device: TunDevice, network: Network
) -> None:
    network(STATE).apply()
    alive = snapshot()
    assert Host(state_dir).recover(None) == []
    assert snapshot() == alive
    assert network(STATE).verify() == []
    network(STATE).cleanup()


def test_an_apply_cut_short_anywhere_is_undone(
    client: Lab, snapshot: Snapshot, state_dir: Path, resolv_conf: Path
) -> None:
    before = snapshot()
    cut = (
        "import os, sys, pathlib\n"
        "from halftunnel_vpn.host import Desired, Host, HostState\n"
        "from halftunnel_vpn.host.kernel.port import RealKernel\n"
        "from halftunnel_vpn.host.record.journal import Journal\n"
        "from halftunnel_vpn.tun import TunDevice\n"
        "left = int(sys.argv[2])\n"
        "def counted(step):\n"
        "    def run(*arguments):\n"
        "        global left\n"
        "        done = step(*arguments)\n"
        "        left -= 1\n"
        "        if not left: os._exit(9)\n"
        "        return done\n"
        "    return run\n"
        "for owner, name in (Journal, 'save'), (RealKernel, 'netlink'), (RealKernel, 'replace_table'):\n"
        "    setattr(owner, name, counted(getattr(owner, name)))\n"
        "device = TunDevice.open('htvpn0', mtu=1500)\n"
        "state = HostState(addresses=('10.72.84.2/32',), dns=('10.72.84.1',))\n"
        "Host(pathlib.Path(sys.argv[1]), resolv_conf=pathlib.Path(sys.argv[3])).apply(Desired(state))\n"
    )
    cuts = 0

    def cut_at(step: int) -> int:
        arguments = (str(state_dir), str(step), str(resolv_conf))
        return client.python(CLIENT, cut, *arguments, check=False).returncode

    while (status := cut_at(cuts + 1)) == 9:
        cuts += 1
        assert Host(state_dir).recover(None) == ["htvpn0"]
        assert snapshot() == before
    assert (status, cuts >= 6) == (0, True), "after each write and each change, then it is through"
    Host(state_dir).recover(None)
    assert snapshot() == before


def test_after_a_reboot_only_the_file_is_put_back(
    client: Lab, snapshot: Snapshot, network: Network, state_dir: Path, kill_tunnel: Callable[..., None]
) -> None:
    original = snapshot()["resolv.conf"]
    kill_tunnel()
    path = state_dir / "htvpn0.journal.json"
    content = json.loads(path.read_text())
    content["place"] = "another-boot 4:4026531840"
    path.write_text(json.dumps(content))
    with pytest.raises(HostError, match="A tunnel that was killed left"):
        device = TunDevice.open("htvpn0", mtu=1500)
        try:
            network(STATE).apply()
        finally:
            device.close()
    assert Host(state_dir).recover(None) == ["htvpn0"]
    after = snapshot()
    assert after["resolv.conf"] == original
    assert "18516" in after["ip rule"], "a kernel of another boot has nothing of ours to remove"


def test_a_resolver_written_by_somebody_else_meanwhile_stays(
    client: Lab, network: Network, resolv_conf: Path, state_dir: Path, kill_tunnel: Callable[..., None]
) -> None:
    kill_tunnel()
    resolv_conf.write_text("nameserver 192.0.2.99\n")
    assert Host(state_dir).recover(None) == ["htvpn0"]
    assert resolv_conf.read_text() == "nameserver 192.0.2.99\n"


def test_a_resolver_that_cannot_be_given_back_leaves_nothing_else(
    client: Lab, snapshot: Snapshot, resolv_conf: Path, state_dir: Path, kill_tunnel: Callable[..., None]
) -> None:
    before = snapshot()
    kill_tunnel()
    ours = resolv_conf.read_bytes()
    resolv_conf.write_bytes(ours + b"#" * MAX_RESOLV_CONF)
    with pytest.raises(HostError, match="is longer than 65536 bytes: shorten it"):
        Host(state_dir).recover(None)
    assert snapshot() | {"resolv.conf": before["resolv.conf"]} == before
    resolv_conf.write_bytes(ours)
    assert Host(state_dir).recover(None) == ["htvpn0"]
    assert snapshot() == before


def test_a_journal_that_cannot_be_read_says_what_to_do(state_dir: Path) -> None:
    state_dir.mkdir()
    path = state_dir / "htvpn0.journal.json"
    for content in ("", "{}", "[1]", '{"format": 7}', '{"format": 1, "state": {"tun": 1}, "steps": {}}'):
        path.write_text(content)
        with pytest.raises(HostError, match=r"The journal .* cannot be read .* remove that file\."):
            Host(state_dir).recover(None)


@pytest.fixture
def full_disk(lab: Lab) -> Iterator[Path]:
    """A state directory on a small file system; fill it with `fill`."""
    directory = lab.directory / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def fill(directory: Path) -> None:
    with contextlib.suppress(OSError), (directory / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_on_a_full_disk_what_somebody_flushed_is_put_back(
    client: Lab, device: TunDevice, full_disk: Path, resolv_conf: Path
) -> None:
    policy = TrafficPolicy(tunnel="htvpn0", inbound=True)
    network = HostTunnel(STATE, full_disk, resolv_conf=resolv_conf, policy=policy)
    network.apply()
    fill(full_disk)
    for _ in range(2):
        client.run(CLIENT, ["nft", "flush", "ruleset"])
        assert network.verify()
        network.host.mend()
        assert network.verify() == []
    network.desired = Desired(STATE, replace(policy, own_ports=(4443,)))
    with pytest.raises(HostError, match="No space left"):
        network.apply()  # what cannot be written down is in force all the same
    assert "4443" in client.run(CLIENT, ["nft", "list", "ruleset"]).stdout
    assert network.verify() == []
    (full_disk / "fill").unlink()
    network.cleanup()


def test_a_kill_switch_on_a_full_disk_is_put_back(client: Lab, full_disk: Path) -> None:
    guard, policy = Host(full_disk), TrafficPolicy()
    guard.apply(Desired(None, policy))
    fill(full_disk)
    client.run(CLIENT, ["nft", "flush", "ruleset"])
    assert guard.differences()
    guard.apply(Desired(None, policy))
    assert guard.differences() == []
    guard.apply(Desired())


@pytest.mark.parametrize("moved", [{"rule_priority": 900}, {"table": 900}, {"mark": 0x900}])
def test_no_rule_stays_where_another_profile_had_them(
    client: Lab, state_dir: Path, snapshot: Snapshot, moved: dict[str, int]
) -> None:
    before = snapshot()
    Host(state_dir).apply(Desired(None, TrafficPolicy(**moved, inbound=True)))
    locked = TrafficPolicy(inbound=True)
    Host(state_dir).apply(Desired(None, locked))
    rules = client.run(CLIENT, ["ip", "rule"]).stdout
    Host(state_dir).apply(Desired())
    assert (
        "proto 72" in rules and "\n900:" not in rules and "0x900" not in rules and "lookup 900" not in rules
    )
    assert snapshot() == before

    Host(state_dir).apply(Desired(None, TrafficPolicy(**moved)))
    (state_dir / "protection.json").unlink()  # nobody remembers where they are
    Host(state_dir).apply(Desired())
    assert "proto 72" not in client.run(CLIENT, ["ip", "rule"]).stdout


@pytest.mark.parametrize("moved", [{"rule_priority": 900}, {"table": 900}, {"mark": 0x900}])
def test_a_tunnel_takes_the_rules_of_a_kill_switch_from_elsewhere(
    client: Lab, device: TunDevice, network: Network, state_dir: Path, moved: dict[str, int]
) -> None:
    Host(state_dir).apply(Desired(None, TrafficPolicy(**moved)))
    tunnel = network(STATE)
    tunnel.apply()
    assert tunnel.verify() == []
    tunnel.cleanup()
    assert "proto 72" not in client.run(CLIENT, ["ip", "rule"]).stdout
