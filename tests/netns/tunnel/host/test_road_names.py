"""The roads' own names, when the host's resolver is the tunnel's and the tunnel has no road."""

from __future__ import annotations

import json
import re
import sys

import pytest
from lab import Lab
from lab.target import start_target
from lab.topology import CLIENT, DOMAIN_A, EXIT, EXIT_A, LAN, LAN_RESOLVER
from lab.tunnel import ROAD_PORT, LabTunnel, edit

from halftunnel_vpn.dns.upstream import DNS_PORT

pytestmark = pytest.mark.root

SPARE_PORT = ROAD_PORT + 1
NOTHING = {"upstream": {"open_legs": []}}


def test_a_road_that_was_never_asked_for_is_found_when_the_other_is_gone(no_leftovers, eventually):
    """Its name is in no hosts file; who knows it is the resolver that the host had before."""
    with Lab() as lab:
        target = start_target(lab)
        zone = lab.directory / "zone.json"
        zone.write_text(json.dumps({"spare.test": [("A", EXIT_A)]}))
        nameserver = [sys.executable, "-m", "lab.nameserver", "--zone", str(zone)]
        lab.start(LAN, [*nameserver, LAN_RESOLVER])
        lab.wait_listening(LAN, DNS_PORT)

        def nft(rules):
            lab.run(EXIT, ["nft", "-f", "-"], input=rules)

        def domains():
            return [leg["domain"] for leg in (tunnel.status() or NOTHING)["upstream"]["open_legs"]]

        nft(f"""
            table ip spare {{
                chain first {{ type filter hook prerouting priority raw; }}
                chain second {{
                    type nat hook prerouting priority dstnat;
                    tcp dport {SPARE_PORT} redirect to :{ROAD_PORT}
                }}
            }}
        """)
        tunnel = LabTunnel(lab, profile={"limits": {"handshake_timeout": '"4s"', "connect_timeout": '"2s"'}})
        (url,) = re.findall(rf"wss://{DOMAIN_A}:[^\"]*", tunnel.profile.read_text())
        spare = url.replace(f"{DOMAIN_A}:{ROAD_PORT}", f"spare.test:{SPARE_PORT}")
        edit(
            tunnel.profile,
            {
                "upstream": {"urls": f'["{url}", "{spare}"]', "policy": '"failover"'},
                "upstream.tls": {"server_name": f'"{DOMAIN_A}"'},
            },
        )
        tunnel.start()
        download = lab.start(
            CLIENT, ["curl", "-sSf", "--limit-rate", "30M", "-o", "/dev/null", target.file_url]
        )
        nft(f"add rule ip spare first ip daddr {EXIT_A} tcp dport {ROAD_PORT} counter drop")
        eventually(lambda: domains() == [f"spare.test:{SPARE_PORT}"], within=90)
        tunnel.wait_connected()
        assert download.wait(90) == 0, lab.output(download)
        assert tunnel.stop_client() == 0, tunnel.client_output()
