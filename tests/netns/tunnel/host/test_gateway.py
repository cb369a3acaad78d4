"""A LAN behind the client, and other network software on it: what goes into the tunnel, and comes back."""

from __future__ import annotations

import json

import pytest
from lab import namespaces
from lab.target import start_target
from lab.topology import CLIENT, CLIENT_LAN, CLIENT_LAN6, LAN, LAN_LINK, TARGET_ADDRESS
from lab.tunnel import LabTunnel

pytestmark = pytest.mark.root

GUARDED = {"protection": {"kill_switch": '"on"'}}
FORWARDING = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/*/forwarding"


def on(lab, host, command, check=True):
    done = lab.run(host, ["sh", "-c", command], check=check)
    return done.stdout


def test_hosts_behind_the_client_go_into_the_tunnel(client, snapshot, lab):
    target = start_target(lab, file_size=20_000_000)
    on(lab, LAN, f"ip route add default via {CLIENT_LAN} && ip -6 route add default via {CLIENT_LAN6}")
    before = snapshot()
    forwarding = on(lab, CLIENT, FORWARDING)
    tunnel = LabTunnel(
        lab, profile={"routes": {"gateway": f'["{LAN_LINK}"]'}, "protection": {"kill_switch": '"on"'}}
    )
    tunnel.start()
    for url in (target.file_url, target.file_url6):
        assert on(lab, LAN, f"curl -sSf {url} | sha256sum").split()[0] == target.file_sha256
    for server in (CLIENT_LAN, "192.0.2.9"):
        asked = f"dig +short +time=20 +tries=1 @{server} target.test"
        assert on(lab, LAN, asked).split() == [TARGET_ADDRESS], server
    assert " 2 received" in on(lab, LAN, f"ping -c 2 -i 0.2 -w 20 {TARGET_ADDRESS}")
    # what it must not reach is the roads
    assert on(lab, LAN, "curl -sS -m 20 http://10.77.1.1:9/ 2>&1; true").startswith("curl: (7)")
    assert tunnel.stop_client() == 0, tunnel.client_output()
    assert snapshot() == before
    assert on(lab, CLIENT, FORWARDING) == forwarding
    assert "Traceback" not in tunnel.client_output()


OTHERS = """
table ip docker {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        oifname "docker0" ct state established,related accept
        iifname "docker0" oifname != "docker0" accept
    }
}
table inet firewalld {
    chain filter_PREROUTING {
        type filter hook prerouting priority filter + 10; policy accept;
        icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop
    }
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        icmp type echo-request accept
        reject with icmpx admin-prohibited
    }
    chain filter_OUTPUT {
        type filter hook output priority filter + 10; policy accept;
        ct state { established, related } accept
    }
}
"""


def test_docker_firewalld_and_another_vpn_go_on_beside_the_tunnel(client, snapshot, lab):
    """As the others set the host up; `other0` stands for another VPN's device, with wg-quick's rules."""
    target = start_target(lab, file_size=20_000_000)
    container = f"{lab.namespace(CLIENT)}-container"
    lab.run(CLIENT, ["nft", "-f", "-"], input=OTHERS)
    namespaces.create(container)
    on(
        lab,
        CLIENT,
        "set -e; sysctl -qw net.ipv4.ip_forward=1; ip link add docker0 type bridge; "
        "ip address add 172.17.0.1/16 dev docker0; ip link set dev docker0 up; "
        "ip link add other0 type bridge; ip address add 10.9.0.1/24 dev other0; ip link set dev other0 up; "
        "ip rule add priority 40 fwmark 0xca6d lookup main; "
        "ip route add 10.66.0.0/16 dev other0; ip route add default dev other0 table 51821; "
        "ip rule add priority 50 from 10.9.0.1 lookup 51821",
    )
    client_name = lab.namespace(CLIENT)
    for words in (
        f"-n {client_name} link add veth0 type veth peer name eth0 netns {container}",
        f"-n {client_name} link set dev veth0 master docker0 up",
        f"-n {container} address add 172.17.0.2/16 dev eth0",
        f"-n {container} link set dev eth0 up",
        f"-n {container} route add default via 172.17.0.1",
        f"netns exec {container} ping -q -c 1 -w 30 172.17.0.1",  # until the bridge is there
    ):
        namespaces.command(["ip", *words.split()])
    try:
        before = snapshot()
        tunnel = LabTunnel(lab, profile=GUARDED)
        tunnel.start()
        up = snapshot()
        assert on(lab, CLIENT, f"curl -sSf {target.file_url} | sha256sum").split()[0] == target.file_sha256
        inside = ["ip", "netns", "exec", container, "sh", "-c"]
        fetched = namespaces.command([*inside, f"curl -sSf {target.file_url} | sha256sum"])
        assert fetched.split()[0] == target.file_sha256
        asked = "dig +short +time=20 +tries=1 @192.0.2.9 target.test"
        assert namespaces.command([*inside, asked]).split() == [TARGET_ADDRESS]
        assert " 1 received" in on(lab, CLIENT, "ping -c 1 -w 20 172.17.0.2")
        # the others' routes and rules: theirs as ever
        for question, device in (("10.66.1.1", "other0"), ("198.51.100.2 from 10.9.0.1", "other0")):
            (route,) = json.loads(on(lab, CLIENT, f"ip -j route get {question}"))
            assert route["dev"] == device, question
        assert set(before["ip rule"].splitlines()) < set(up["ip rule"].splitlines())
        for table in ("table ip docker", "table inet firewalld"):
            assert section(up["nft list ruleset"], table) == section(before["nft list ruleset"], table)
        assert tunnel.stop_client() == 0, tunnel.client_output()
        assert snapshot() == before
    finally:
        namespaces.delete(container)


def section(ruleset, header):
    """One table of `nft list ruleset`."""
    return ruleset.partition(header)[2].partition("\n}")[0]
