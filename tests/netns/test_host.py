"""A tunnel's changes to a host: made, checked, made again, undone; compared byte for byte."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lab import Lab
from lab.host_tunnel import HostTunnel
from lab.topology import CLIENT

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host import HostState, preflight, system_servers
from halftunnel_vpn.host.kernel import addresses
from halftunnel_vpn.host.kernel.addresses import local_addresses
from halftunnel_vpn.tun import TunDevice

pytestmark = pytest.mark.root

Snapshot = Callable[[], dict[str, str]]
Network = Callable[[HostState], HostTunnel]

ROUTE_ALL = HostState(addresses=("10.72.84.2/32", "fd72:84::2/128"), dns=("10.72.84.1",), mtu=1400)
SPLIT = replace(ROUTE_ALL, include=("198.51.100.0/24", "203.0.113.7/32"), exclude=("198.51.100.128/25",))
STATES = {
    "everything": ROUTE_ALL,
    "some networks": SPLIT,
    "some networks, no interception": replace(SPLIT, intercept_dns=False),
    "no IPv6 at the exit": replace(ROUTE_ALL, ipv6=False),
    "resolver left alone": replace(ROUTE_ALL, dns=None),
    "nothing at all": replace(ROUTE_ALL, include=(), intercept_dns=False),
    "address with a network": replace(ROUTE_ALL, addresses=("10.72.84.2/24", "fd72:84::2/64")),
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_the_host_afterwards_is_the_host_before(
    client: Lab, network: Network, snapshot: Snapshot, state: HostState
) -> None:
    before = snapshot()
    device = TunDevice.open("htvpn0", mtu=1500)
    tunnel = network(state)
    assert tunnel.verify() != []

    assert tunnel.apply() == []
    assert tunnel.verify() == []
    applied = snapshot()
    assert applied != before

    assert tunnel.apply() == [], "a second time"
    assert snapshot() == applied

    tunnel.cleanup()
    assert tunnel.verify() != []
    device.close()
    assert snapshot() == before
    assert list((client.directory / "state").iterdir()) == []

    tunnel.cleanup()
    assert snapshot() == before


def test_it_works_where_an_event_loop_runs(device: TunDevice, network: Network) -> None:
    async def up_and_down() -> list[str]:
        tunnel = network(ROUTE_ALL)
        warnings = tunnel.apply() + tunnel.verify()
        tunnel.cleanup()
        return warnings

    assert asyncio.run(up_and_down()) == []


def test_one_state_follows_another_without_remains(
    device: TunDevice, network: Network, snapshot: Snapshot
) -> None:
    before = snapshot()
    moved = replace(SPLIT, table=900, rule_priority=900)
    for state in (*STATES.values(), moved, ROUTE_ALL):
        tunnel = network(state)
        assert tunnel.apply() == []
        assert tunnel.verify() == []
    changed = snapshot()
    network(ROUTE_ALL).cleanup()
    network(ROUTE_ALL).apply()
    assert snapshot() == changed, "the last state alone counts"
    network(ROUTE_ALL).cleanup()
    after = snapshot()
    assert after["ip rule"] == before["ip rule"] and after["resolv.conf"] == before["resolv.conf"]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("ip rule del priority 18908", "IPv4 rule 18908: from all lookup 18516 is missing"),
        ("ip -6 route flush table 18516", "IPv6 default route beneath the TUN is missing"),
        ("ip rule add priority 18518 to 192.0.2.0/24 lookup main proto 72", "should not be there"),
        ("ip link set dev htvpn0 mtu 1300", "The device htvpn0 has the MTU 1300, not 1400."),
        ("ip link set dev htvpn0 down", "The device htvpn0 is down."),
        ("ip address add 10.1.2.3/32 dev htvpn0", "The address 10.1.2.3/32 should not be there."),
        ("ip address del 10.72.84.2/32 dev htvpn0", "The address 10.72.84.2/32 is missing."),
        ("nft flush ruleset", "The nft table inet halftunnel is missing."),
        ("nft flush chain inet halftunnel replies", "The nft table inet halftunnel was changed."),
        ("sh -c 'echo nameserver 192.0.2.1 >/etc/resolv.conf'", "resolv.conf is not as the tunnel wrote it."),
        ("sh -c 'echo 0 >/proc/sys/net/ipv4/conf/all/src_valid_mark'", "src_valid_mark is not 1."),
    ],
)
def test_damage_is_seen_and_mended(
    client: Lab, device: TunDevice, network: Network, damage: str, complaint: str
) -> None:
    tunnel = network(ROUTE_ALL)
    tunnel.apply()
    client.run(CLIENT, shlex.split(damage))
    assert complaint in "\n".join(tunnel.verify())
    assert tunnel.apply() == []
    assert tunnel.verify() == []


def test_what_belongs_to_others_stays(client: Lab, network: Network, snapshot: Snapshot) -> None:
    for foreign in (
        "ip rule add priority 18519 to 192.0.2.0/24 lookup main",
        "ip rule add priority 100 fwmark 0x1 lookup 77",
        "ip route add 192.0.2.0/24 via 10.77.1.1 table 77",
        "nft add table inet foreign",
        "nft 'add chain inet foreign filter { type filter hook input priority 0; policy accept; }'",
    ):
        client.run(CLIENT, shlex.split(foreign))
    before = snapshot()
    device = TunDevice.open("htvpn0", mtu=1500)
    tunnel = network(ROUTE_ALL)
    tunnel.apply()
    assert tunnel.verify() == []
    tunnel.cleanup()
    device.close()
    assert snapshot() == before


def test_a_host_that_set_src_valid_mark_itself_keeps_it(device: TunDevice, network: Network) -> None:
    setting = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")
    setting.write_text("1")
    network(ROUTE_ALL).apply()
    network(ROUTE_ALL).cleanup()
    assert setting.read_text() == "1\n"


def test_a_first_apply_that_fails_leaves_nothing(
    client: Lab, network: Network, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot()
    with pytest.raises(HostError, match="The device htvpn0 is not there: open it"):
        network(ROUTE_ALL).apply()
    assert snapshot() == before

    device = TunDevice.open("htvpn0", mtu=1500)
    with monkeypatch.context() as patched:
        patched.setattr("halftunnel_vpn.host.external_program.ExternalProgram.find", lambda program: None)
        with pytest.raises(HostError, match="nft is not installed: install the package nftables"):
            network(ROUTE_ALL).apply()
    device.close()
    assert snapshot() == before


def test_a_host_with_ipv6_switched_off_gets_a_tunnel_of_ipv4(
    client: Lab, network: Network, snapshot: Snapshot
) -> None:
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    before = snapshot()
    device = TunDevice.open("htvpn0", mtu=1500)
    tunnel = network(ROUTE_ALL)
    assert tunnel.apply() == []
    assert tunnel.verify() == []
    assert "inet6" not in client.run(CLIENT, "ip address show dev htvpn0".split()).stdout
    tunnel.cleanup()
    device.close()
    assert snapshot() == before


def test_the_preflight_names_what_is_missing(client: Lab, tmp_path: Path) -> None:
    preflight("htvpn0")
    with pytest.raises(HostError, match=r"^The device name road-a is taken: "):
        preflight("road-a")
    with pytest.raises(HostError, match=r"There is no .*modprobe tun"):
        preflight("htvpn0", tun_device=tmp_path / "tun")
    program = (
        "import os\n"
        "from halftunnel_vpn.host import preflight\n"
        "os.setuid(65534)\n"
        "try: preflight('htvpn0')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    assert client.python(CLIENT, program).stdout.startswith("HostError A tunnel needs root")


def test_the_hosts_own_resolvers_are_known_before_they_are_replaced(
    device: TunDevice, network: Network, resolv_conf: Path
) -> None:
    assert system_servers(resolv_conf) == ("192.168.77.53",)
    network(ROUTE_ALL).apply()
    assert system_servers(resolv_conf) == ()
    network(ROUTE_ALL).cleanup()


def test_a_process_of_the_client_sees_the_tunnels_resolver_at_once(
    client: Lab, device: TunDevice, network: Network
) -> None:
    watcher = subprocess.Popen(
        client.argv(CLIENT, ["sh", "-c", "read line; cat /etc/resolv.conf"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    network(ROUTE_ALL).apply()
    seen, _ = watcher.communicate("go\n", timeout=60)
    assert "nameserver 10.72.84.1\n" in seen
    network(ROUTE_ALL).cleanup()


def test_the_addresses_of_every_device_are_known_whatever_its_name(client: Lab) -> None:
    for command in (
        "link add küche type veth",
        "link set dev küche up",
        "address add fd77:9::1/64 dev küche",
    ):
        client.run(CLIENT, ["ip", *command.split()])
    found = {str(address) for address in local_addresses()}
    assert {"fd77:9::1", "192.168.77.2"} <= found


def test_without_proc_the_addresses_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "FIB_TRIE", tmp_path / "missing")
    with pytest.raises(OSError):
        local_addresses()


def test_a_mount_point_may_have_any_name(client: Lab, tmp_path: Path) -> None:
    program = """
import os, pathlib, subprocess, sys
from halftunnel_vpn.host import Desired, Host, HostState
from halftunnel_vpn.host.resolver.resolv_conf_file import is_mount_point
from halftunnel_vpn.tun import TunDevice
directory = pathlib.Path(sys.argv[1])
place = directory / os.fsdecode(b"Ger\\xe4t")  # Latin-1, as an old stick has it
place.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
assert is_mount_point(place)
device = TunDevice.open("htvpn0", mtu=1500)
host = Host(directory / "state")
print(host.apply(Desired(HostState(addresses=("10.72.84.2/32",)))))
host.apply(Desired())
"""
    assert client.python(CLIENT, program, str(tmp_path)).stdout == "[]\n"


def test_the_journal_is_private_and_readable(client: Lab, device: TunDevice, network: Network) -> None:
    network(ROUTE_ALL).apply()
    journal = client.directory / "state" / "htvpn0.journal.json"
    assert json.loads(journal.read_text())["state"]["tun"] == "htvpn0"
    assert journal.parent.stat().st_mode & 0o777 == 0o700
    network(ROUTE_ALL).cleanup()
