"""`[proxy_server]` in the profile: the listeners beside a tunnel, as long as that is up."""

from __future__ import annotations

import pytest
from lab import Lab
from lab.target import start_target
from lab.topology import CLIENT, TARGET_ADDRESS
from lab.tunnel import LabTunnel

from halftunnel_vpn.errors import HostError

pytestmark = pytest.mark.root

PROXIES = {"proxy_server": {"socks": '["127.0.0.1:1080"]', "http": '["127.0.0.1:8080"]'}}
SIZE = 1_000_000


def test_the_proxies_of_a_profile_come_and_go_with_the_tunnel(no_leftovers: None) -> None:
    with Lab() as lab:
        target = start_target(lab, file_size=SIZE)
        tunnel = LabTunnel(lab, profile=PROXIES)
        tunnel.start()
        for options in (
            "-x socks5h://127.0.0.1:1080 http://target.test",
            "-x http://127.0.0.1:8080 http://target.test",
            f"http://{TARGET_ADDRESS}",
        ):
            download = f"curl -sSf {options}/large.bin | sha256sum"
            assert target.file_sha256 in lab.run(CLIENT, ["sh", "-c", download]).stdout, options
        assert tunnel.down() == 0, tunnel.client_output()
        refused = lab.run(
            CLIENT, ["curl", "-sS", "-x", "http://127.0.0.1:8080", "http://target.test/"], check=False
        )
        assert refused.returncode == 7, refused.stderr  # nobody listens
        busy = "import socket, time; s = socket.create_server(('127.0.0.1', 8080)); time.sleep(600)"
        lab.start(CLIENT, ["python3", "-c", busy])
        lab.wait_listening(CLIENT, 8080)
        tunnel.start_client()
        with pytest.raises(HostError, match=r"127\.0\.0\.1 port 8080: another program has it"):
            tunnel.wait_connected()
        assert "Traceback" not in tunnel.client_output()
