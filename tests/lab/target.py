"""What the target offers: a web server with a large file, a DNS server, iperf3."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.nginx import TEMPORARY_PATHS
from lab.topology import (
    LAN,
    LAN_RESOLVER,
    LAN_RESOLVER6,
    TARGET,
    TARGET_ADDRESS,
    TARGET_ADDRESS6,
    Lab,
)

if TYPE_CHECKING:  # at run time it is a program of its own
    from lab.nameserver import Zone

FILE_NAME: Final = "large.bin"
FILE_SIZE: Final = 100_000_000
"""Bytes of the large file."""
SMALL_FILE_NAME: Final = "small.txt"
SMALL_FILE_SIZE: Final = 1000
"""Bytes of the small file, for requests a second."""

WEB_PORT: Final = 80
DNS_PORT: Final = 53
IPERF_PORT: Final = 5201

WEB_NAME: Final = "www.target.test"

ZONE: Final[Zone] = {
    "target.test": [("A", TARGET_ADDRESS), ("AAAA", TARGET_ADDRESS6), ("TXT", "the target's own answer")],
    WEB_NAME: [("CNAME", "web.target.test")],
    "web.target.test": [("CNAME", "target.test")],
    "only4.target.test": [("A", TARGET_ADDRESS)],
    "only6.target.test": [("AAAA", TARGET_ADDRESS6)],
    "big.target.test": [("TXT", "x" * 4000)],
    "who.test": [("TXT", "target")],
}
"""What the target's DNS server knows; everything else does not exist."""

LAN_ZONE: Final[Zone] = {
    "printer.lan": [("A", "192.168.77.80")],
    "target.test": [("A", "192.168.77.66")],
    "who.test": [("TXT", "lan")],
}
"""What the LAN's resolver knows; an answer of its own to ``target.test`` shows a leak."""

_NGINX: Final = (
    """\
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  client_max_body_size 0;
"""
    + TEMPORARY_PATHS
    + """\
  server {{
    listen {port} backlog=4096;
    listen [::]:{port} backlog=4096;
    root {root};
    location /upload/ {{ dav_methods PUT; }}
  }}
}}
"""
)
_SEARCH_PATH: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


@dataclass(frozen=True, slots=True)
class Target:
    """What was started. ``file_sha256`` is the large file's; ``uploads`` takes what is PUT below /upload/."""

    web_server: str
    file_sha256: str
    uploads: Path
    has_iperf3: bool

    @property
    def file_url(self) -> str:
        """The large file, by IPv4 address."""
        return f"http://{TARGET_ADDRESS}:{WEB_PORT}/{FILE_NAME}"

    @property
    def file_url6(self) -> str:
        """The large file, by IPv6 address."""
        return f"http://[{TARGET_ADDRESS6}]:{WEB_PORT}/{FILE_NAME}"


def start_target(lab: Lab, *, file_size: int = FILE_SIZE, names: Zone | None = None) -> Target:
    """Start the target's servers and return when they listen. HostError when one does not.

    ``file_size`` is the large file's; ``names`` are known to its name server besides those of ZONE.
    """
    root = lab.directory / "www"
    uploads = root / "upload"
    uploads.mkdir(parents=True)
    content = os.urandom(file_size)
    (root / FILE_NAME).write_bytes(content)
    (root / SMALL_FILE_NAME).write_bytes(b"x" * SMALL_FILE_SIZE)
    web_server = _start_web_server(lab, root)
    _start_nameserver(lab, TARGET, {**ZONE, **(names or {})}, [TARGET_ADDRESS, TARGET_ADDRESS6])
    iperf3 = shutil.which("iperf3", path=_SEARCH_PATH)
    if iperf3 is not None:
        lab.start(TARGET, [iperf3, "--server", "--port", str(IPERF_PORT)])
        lab.wait_listening(TARGET, IPERF_PORT)
    for port in (WEB_PORT, DNS_PORT):
        lab.wait_listening(TARGET, port)
    return Target(web_server, hashlib.sha256(content).hexdigest(), uploads, iperf3 is not None)


def start_lan_resolver(lab: Lab) -> Path:
    """Start the resolver on the client's LAN; the file in which it notes, a line each, what it was asked."""
    notes = _start_nameserver(lab, LAN, LAN_ZONE, [LAN_RESOLVER, LAN_RESOLVER6])
    lab.wait_listening(LAN, DNS_PORT)
    return notes


def _start_web_server(lab: Lab, root: Path) -> str:
    nginx = shutil.which("nginx", path=_SEARCH_PATH)
    if nginx is None:
        module = "lab.webserver"
        lab.start(TARGET, [sys.executable, "-m", module, str(root), "--port", str(WEB_PORT)])
        return "python"
    configuration = lab.directory / "nginx.conf"
    configuration.write_text(_NGINX.format(directory=lab.directory, root=root, port=WEB_PORT))
    lab.start(TARGET, [nginx, "-c", str(configuration), "-p", str(lab.directory), "-g", "daemon off;"])
    return "nginx"


def _start_nameserver(lab: Lab, host: str, zone: Zone, addresses: list[str]) -> Path:
    path = lab.directory / f"{host}-zone.json"
    path.write_text(json.dumps(zone))
    module = "lab.nameserver"
    process = lab.start(host, [sys.executable, "-m", module, "--zone", str(path), *addresses])
    return lab.output_path(process)
