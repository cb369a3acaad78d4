"""The roads' names behind a real dnsmasq on 127.0.0.1, whose own questions the kill switch refuses."""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import dataclass, field

import pytest
from lab import Lab, namespaces
from lab.topology import (
    CLIENT,
    DOMAIN_A,
    DOMAIN_B,
    EXIT,
    EXIT_A,
    EXIT_B,
    LAN,
    LAN_RESOLVER,
    ROAD_A,
)
from lab.tunnel import ROAD_PORT, LabTunnel, edit

from halftunnel_vpn.dns.upstream import DNS_PORT

pytestmark = pytest.mark.root

MOVED = "10.77.1.7"
"""Where the exit of road A can be found as well."""


@dataclass
class Site:
    """A host whose names come from dnsmasq, and a name server on the LAN behind that."""

    lab: Lab
    tunnel: LabTunnel
    running: list = field(default_factory=list)

    def serve(self, **addresses):
        """Have the LAN's name server know these addresses of the two domains, and no others."""
        for process in self.running:
            self.lab.stop(process)
        zone = self.lab.directory / "zone.json"
        names = {DOMAIN_A: addresses["a"], DOMAIN_B: addresses["b"]}
        zone.write_text(json.dumps({name: [("A", address)] for name, address in names.items()}))
        argv = [sys.executable, "-m", "lab.nameserver", "--zone", str(zone), LAN_RESOLVER]
        self.running = [self.lab.start(LAN, argv)]
        self.lab.wait_listening(LAN, DNS_PORT)

    def nft(self, host, rules):
        self.lab.run(host, ["nft", "-f", "-"], input=rules)

    def address_of_a(self):
        """Where the upstream leg leads."""
        status = self.tunnel.status() or {"upstream": {"open_legs": []}}
        return [leg["address"] for leg in status["upstream"]["open_legs"]]


@pytest.fixture(scope="module")
def site(no_leftovers):
    with Lab() as lab:
        configuration = namespaces.CONFIGURATION / lab.namespace(CLIENT)
        (configuration / "hosts").write_text("127.0.0.1 localhost\n")
        made = Site(lab, LabTunnel(lab, profile={"protection": {"kill_switch": '"on"'}}))
        made.serve(a=EXIT_A, b=EXIT_B)
        lab.run(EXIT, ["ip", "address", "add", f"{MOVED}/24", "dev", ROAD_A])
        made.nft(EXIT, f"""
            table ip moved {{
                chain in {{
                    type nat hook prerouting priority dstnat;
                    ip daddr {MOVED} tcp dport {ROAD_PORT} dnat to {EXIT_A}
                }}
            }}
        """)  # fmt: skip
        made.tunnel.start_exit()
        yield made


@pytest.fixture(autouse=True)
def client_ends(site):
    yield
    if site.tunnel.client is not None and site.tunnel.client.poll() is None:
        site.tunnel.stop_client()


@pytest.fixture
def dnsmasq(site):
    """It runs on 127.0.0.1, which is all that resolv.conf names; it keeps nothing."""
    resolv_conf = namespaces.CONFIGURATION / site.lab.namespace(CLIENT) / "resolv.conf"
    before = resolv_conf.read_text()
    resolv_conf.write_text("nameserver 127.0.0.1\n")
    argv = [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv",
        f"--server={LAN_RESOLVER}", "--listen-address=127.0.0.1", "--bind-interfaces", "--cache-size=0",
        "--user=root", "--pid-file=",
    ]  # fmt: skip
    process = site.lab.start(CLIENT, argv)
    site.lab.wait_listening(CLIENT, DNS_PORT)
    yield process
    site.lab.stop(process)
    resolv_conf.write_text(before)


def test_behind_a_forwarder_the_kill_switch_lets_the_roads_be_found_and_a_new_address_followed(
    site, dnsmasq, eventually
):
    tunnel = site.tunnel
    tunnel.start_client()
    tunnel.wait_connected()
    assert site.address_of_a() == [EXIT_A]
    site.serve(a=MOVED, b=EXIT_B)
    site.nft(EXIT, f"""
        table ip gone {{
            chain in {{ type filter hook prerouting priority raw; ip daddr {EXIT_A} drop; }}
        }}
    """)  # fmt: skip
    try:
        eventually(lambda: site.address_of_a() == [MOVED], within=60)
        tunnel.wait_connected()
    finally:
        site.nft(EXIT, "delete table ip gone\n")
    assert tunnel.stop_client() == 0, tunnel.client_output()


def test_the_next_start_finds_the_roads_while_no_resolver_answers(site, dnsmasq, eventually):
    """By the addresses that the last test has left on disk."""
    tunnel = site.tunnel
    site.serve(a=EXIT_A, b=EXIT_B)
    tunnel.start_client()
    tunnel.wait_connected()
    assert tunnel.stop_client() == 0, tunnel.client_output()
    for process in site.running:
        site.lab.stop(process)
    site.running = []
    tunnel.start_client()
    tunnel.wait_connected()
    assert "using its last addresses" in tunnel.client_output()
    assert tunnel.stop_client() == 0, tunnel.client_output()


def test_sigterm_does_not_wait_for_a_resolver_that_is_silent(site, eventually):
    """getaddrinfo hangs in the C library for as long as its time-outs are: here for a minute.

    The questions are dropped where the resolver is: a drop on the host itself would fail them at once.
    """
    tunnel = site.tunnel
    edit(tunnel.profile, {"protection": {"kill_switch": '"off"'}})
    for path in tunnel.state_directory.glob("road-addresses.json"):
        path.unlink()
    site.nft(
        LAN,
        """
        table ip mute {
            counter asked { }
            chain in { type filter hook prerouting priority raw; udp dport 53 counter name asked drop; }
        }
    """,
    )

    def has_asked():
        listed = site.lab.run(LAN, ["nft", "list", "counter", "ip", "mute", "asked"]).stdout
        return "packets 0" not in listed

    resolv_conf = namespaces.CONFIGURATION / site.lab.namespace(CLIENT) / "resolv.conf"
    before = resolv_conf.read_text()
    resolv_conf.write_text(f"{before}options timeout:30 attempts:2\n")
    try:
        process = tunnel.start_client()
        eventually(has_asked, within=60)
        assert process.poll() is None, tunnel.client_output()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert time.monotonic() - began < 20
    finally:
        resolv_conf.write_text(before)
        site.nft(LAN, "delete table ip mute\n")
