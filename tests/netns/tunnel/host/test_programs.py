"""Programs that go another way than the rest: `htvpn exclude` and `htvpn only`, with real sockets."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest
from lab import Lab
from lab.target import start_target
from lab.topology import (
    CLIENT,
    CLIENT_A,
    CLIENT_A6,
    EXIT,
    EXIT_UPLINK,
    EXIT_UPLINK6,
    TARGET_ADDRESS,
)
from lab.tunnel import LabTunnel

pytestmark = pytest.mark.root

PORT = 7777
INSIDE = {EXIT_UPLINK, EXIT_UPLINK6}
OUTSIDE = {CLIENT_A, CLIENT_A6}
WITH_CGROUPS = ["sh", "-c", 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"', "sh"]

# Says to everybody, over TCP and UDP, which address they come from.
MIRROR = f"""
import socket, threading
tcp = socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
udp.bind(("::", {PORT}))
def datagrams():
    while True:
        _, peer = udp.recvfrom(100)
        udp.sendto(peer[0].encode(), peer)
threading.Thread(target=datagrams, daemon=True).start()
while True:
    connection, peer = tcp.accept()
    connection.sendall(peer[0].encode())
    connection.close()
"""

# Asks the mirror on its addresses, over TCP and UDP, and prints who it is taken for.
ASK = f"""
import json, socket
seen = []
for address in ("{EXIT_UPLINK}", "{EXIT_UPLINK6}"):
    with socket.create_connection((address, {PORT}), timeout=30) as connection:
        seen.append(connection.recv(100).decode())
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(30)
        datagrams.sendto(b"who am I?", (address, {PORT}))
        seen.append(datagrams.recv(100).decode())
print(json.dumps([text.removeprefix("::ffff:") for text in seen]))
"""


@contextlib.contextmanager
def tunnel_up(**edits):
    with Lab() as lab:
        start_target(lab)
        lab.start(EXIT, [sys.executable, "-c", MIRROR])
        lab.wait_listening(EXIT, PORT)
        tunnel = LabTunnel(lab, profile=edits)
        tunnel.start_exit()
        tunnel.start_client(wrapper=WITH_CGROUPS)
        tunnel.wait_connected()
        yield tunnel
        assert tunnel.stop_client() == 0, tunnel.client_output()
        assert "Traceback" not in tunnel.client_output()


def seen(tunnel, *prefix):
    if prefix:
        words = [*prefix, "--socket", str(tunnel.socket), "--", sys.executable, "-c", ASK]
        return set(json.loads(tunnel.htvpn(CLIENT, *words)))
    return set(json.loads(tunnel.lab.run(CLIENT, [sys.executable, "-c", ASK]).stdout))


def said(tunnel, name, *command):
    """What `htvpn NAME -- COMMAND` prints, both streams, whether it succeeds or not."""
    words = [sys.executable, "-m", "halftunnel_vpn.cli", name, "--socket", str(tunnel.socket), "--", *command]
    done = tunnel.lab.run(CLIENT, words, check=False)
    return done.stdout + done.stderr


def test_an_excluded_program_goes_outside_and_its_questions_for_names_inside():
    with tunnel_up(protection={"kill_switch": '"on"'}) as tunnel:
        assert seen(tunnel) == INSIDE
        assert seen(tunnel, "exclude") == OUTSIDE
        assert seen(tunnel) == INSIDE
        assert said(tunnel, "exclude", "dig", "+short", "target.test").split() == [TARGET_ADDRESS]
        assert " 2 received" in said(
            tunnel, "exclude", "ping", "-c", "2", "-i", "0.2", "-w", "20", EXIT_UPLINK
        )
        # an exit without a road: the excluded one goes on
        tunnel.lab.lose(EXIT, "road-b", 1000)
        assert seen(tunnel, "exclude") == OUTSIDE
        tunnel.lab.lose(EXIT, "road-b", 0)
        assert "All traffic uses the tunnel already" in said(tunnel, "only", "true")


def test_only_one_program_goes_inside():
    with tunnel_up(routes={"programs": '"only"'}) as tunnel:
        before = tunnel.lab.run(CLIENT, ["cat", "/etc/resolv.conf"]).stdout
        assert "Half-Tunnel" not in before
        assert seen(tunnel) == OUTSIDE
        assert seen(tunnel, "only") == INSIDE
        assert seen(tunnel) == OUTSIDE
        dig = ("dig", "+short", "+time=20", "+tries=1", "target.test")
        for server in ("192.168.77.53", "127.0.0.53", "192.0.2.9"):
            assert said(tunnel, "only", *dig, f"@{server}").split() == [TARGET_ADDRESS], server
        # bound to a device, it finds no way around
        url = f"http://{EXIT_UPLINK}:{PORT}/"
        assert "(7)" in said(tunnel, "only", "curl", "-sS", "-m", "20", "--interface", "road-a", url)
