"""The nginx example of docs/DEPLOYMENT.md, unchanged except names and files, in front of a real exit."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab import Lab
from lab.certificates import make_certificate
from lab.topology import CLIENT, DOMAIN_A, DOMAIN_B, EXIT, TARGET, TARGET_ADDRESS

from halftunnel_vpn.config.server import parse_server
from halftunnel_vpn.control import requests as control

pytestmark = pytest.mark.root

DEPLOYMENT = Path(__file__).parents[2] / "docs" / "DEPLOYMENT.md"
HTVPN = [sys.executable, "-m", "halftunnel_vpn.cli"]
ROADS = {"upstream": (DOMAIN_A, 8001), "downstream": (DOMAIN_B, 8002)}

NGINX = """\
user root;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
access_log off;
client_body_temp_path {directory}/t1;
proxy_temp_path {directory}/t2;
fastcgi_temp_path {directory}/t3;
uwsgi_temp_path {directory}/t4;
scgi_temp_path {directory}/t5;
{servers}
}}
"""


def server_block(directory: Path, domain: str, port: int, path: str) -> str:
    """The example, made to fit one road."""
    example = re.search(r"```nginx\n(.*?)```", DEPLOYMENT.read_text(encoding="utf-8"), re.DOTALL)[1]
    for old, new in (
        ("a.example.org;", f"{domain};"),
        ("/etc/letsencrypt/live/a.example.org/fullchain.pem", str(directory / "both.pem")),
        ("/etc/letsencrypt/live/a.example.org/privkey.pem", str(directory / "both.pem")),
        ("/the-secret-path-of-upstream", path),
        ("127.0.0.1:8001", f"127.0.0.1:{port}"),
        ("/var/www/html", str(directory / "html")),
    ):
        assert old in example, f"DEPLOYMENT.md has no {old} any more"
        example = example.replace(old, new)
    return example


@pytest.fixture
def authority(lab: Lab) -> str:
    """The certificate of both domains, in the lab's directory; returns what clients are to trust."""
    return make_certificate(lab.directory / "both.pem")


@pytest.fixture
def exit_behind_nginx(lab: Lab, authority: str) -> Path:
    """A running exit on loopback with a running nginx before it; the directory of the exit."""
    directory = lab.directory / "exit"
    arguments = ["--behind-proxy", "--allow-egress", f"{TARGET_ADDRESS}/32"]
    for road, (domain, port) in ROADS.items():
        arguments += [f"--{road}", f"wss://{domain}", f"--listen-{road}", f"127.0.0.1:{port}"]
    lab.run(EXIT, [*HTVPN, "server", "init", "--dir", str(directory), *arguments])
    config = parse_server((directory / "server.toml").read_text())
    (lab.directory / "html").mkdir()
    (lab.directory / "html" / "index.html").write_text("an ordinary site\n")
    servers = [
        server_block(lab.directory, domain, port, getattr(config.listen, road).path)
        for road, (domain, port) in ROADS.items()
    ]
    configuration = lab.directory / "nginx.conf"
    configuration.write_text(NGINX.format(directory=lab.directory, servers="\n".join(servers)))
    nginx = shutil.which("nginx", path="/usr/sbin:/sbin:/usr/bin")
    assert nginx, "nginx is not installed"
    lab.start(EXIT, [*HTVPN, "server", "run", "--dir", str(directory)])
    lab.start(EXIT, [nginx, "-c", str(configuration), "-p", str(lab.directory), "-g", "daemon off;"])
    for port in (443, 8001, 8002):
        lab.wait_listening(EXIT, port)
    return directory


def test_a_client_connects_through_nginx_and_strangers_see_a_web_site(lab, exit_behind_nginx, authority):
    profile = lab.run(
        EXIT, [*HTVPN, "server", "add-client", "laptop", "--dir", str(exit_behind_nginx)]
    ).stdout
    path = lab.directory / "laptop.toml"
    path.write_text(f'{profile}\n[tls]\nca = """\n{authority}"""\n')
    path.chmod(0o600)
    (lab.directory / "ca.pem").write_text(authority)

    stranger = ["curl", "-sS", "--cacert", str(lab.directory / "ca.pem"), f"https://{DOMAIN_A}/"]
    assert lab.run(CLIENT, stranger).stdout == "an ordinary site\n"

    socket = str(lab.directory / "control.sock")
    state = {"STATE_DIRECTORY": str(lab.directory / "state")}
    up = lab.start(CLIENT, [*HTVPN, "up", str(path), "--foreground", "--socket", socket], env=state)
    deadline = time.monotonic() + 60
    while (control.read_status(socket) or {}).get("state") != "connected":
        assert up.poll() is None and time.monotonic() < deadline, lab.output(up)
        time.sleep(0.05)

    page = lab.directory / "www"
    page.mkdir()
    (page / "hello.txt").write_text("hello through nginx\n")
    lab.start(TARGET, [sys.executable, "-m", "http.server", "8080", "--directory", str(page)])
    lab.wait_listening(TARGET, 8080)
    url = f"http://{TARGET_ADDRESS}:8080/hello.txt"
    assert lab.run(CLIENT, ["curl", "-sS", "--max-time", "30", url]).stdout == "hello through nginx\n"

    down = lab.run(CLIENT, [*HTVPN, "down", "--socket", socket])
    assert down.stdout == "disconnected\n"
    assert up.wait(60) == 0
    with pytest.raises(subprocess.TimeoutExpired):
        lab.run(CLIENT, ["curl", "-sS", url], timeout=1)
