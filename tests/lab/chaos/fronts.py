"""Ordinary web servers in front of an exit's two domains: nginx, HAProxy and Caddy, with short time-outs."""

from __future__ import annotations

import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from halftunnel_vpn.config.server import parse_server
from halftunnel_vpn.errors import HostError
from lab.certificates import make_certificate
from lab.nginx import TEMPORARY_PATHS
from lab.topology import DOMAIN_A, DOMAIN_B, EXIT, TARGET_ADDRESS, Lab
from lab.tunnel import ALLOWED_EGRESS, ROAD_PORT, LabTunnel, edit

PORTS: Final = {"upstream": 8001, "downstream": 8002}
"""Where the exit listens, on loopback, without TLS."""

_SEARCH_PATH: Final = "/usr/bin:/usr/sbin:/sbin:/usr/local/bin:/usr/local/sbin"


@dataclass(frozen=True, slots=True)
class FrontKind:
    """A program, its configuration file (a format string), how it is started and how it reloads."""

    program: str
    file: str
    configuration: str
    arguments: tuple[str, ...]
    reload_signal: int | None = None
    reload_command: tuple[str, ...] = ()


NGINX: Final = FrontKind(
    "nginx",
    "nginx.conf",
    """\
user root;
worker_processes 1;
worker_shutdown_timeout 1s;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
  access_log off;
"""
    + TEMPORARY_PATHS
    + """\
  server {{
    listen {port} ssl;
    ssl_certificate {directory}/both.pem;
    ssl_certificate_key {directory}/both.pem;
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
    proxy_set_header Host $host;
    proxy_read_timeout {idle}s;
    proxy_send_timeout {idle}s;
    location = {upstream} {{ proxy_pass http://127.0.0.1:{upstream_port}; }}
    location = {downstream} {{ proxy_pass http://127.0.0.1:{downstream_port}; }}
  }}
}}
""",
    ("-c", "{file}", "-p", "{directory}", "-g", "daemon off;"),
    reload_signal=signal.SIGHUP,
)

HAPROXY: Final = FrontKind(
    "haproxy",
    "haproxy.cfg",
    """\
global
  maxconn 1000
  hard-stop-after 1s
defaults
  mode http
  timeout connect 5s
  timeout client {idle}s
  timeout server {idle}s
  timeout tunnel {idle}s
frontend domains
  bind :{port} ssl crt {directory}/both.pem
  use_backend upstream if {{ path {upstream} }}
  use_backend downstream if {{ path {downstream} }}
backend upstream
  server exit 127.0.0.1:{upstream_port}
backend downstream
  server exit 127.0.0.1:{downstream_port}
""",
    ("-W", "-db", "-f", "{file}"),
    reload_signal=signal.SIGUSR2,
)

CADDY: Final = FrontKind(
    "caddy",
    "Caddyfile",
    """\
{{
  admin localhost:2019
  auto_https off
  grace_period 1s
  servers {{
    protocols h1 h2
    timeouts {{
      read_header {idle}s
      idle {idle}s
    }}
  }}
}}
https://{domain_a}:{port}, https://{domain_b}:{port} {{
  tls {directory}/both.pem {directory}/both.pem
  handle {upstream} {{
    reverse_proxy 127.0.0.1:{upstream_port}
  }}
  handle {downstream} {{
    reverse_proxy 127.0.0.1:{downstream_port}
  }}
}}
""",
    ("run", "--config", "{file}", "--adapter", "caddyfile"),
    reload_command=("reload", "--config", "{file}", "--adapter", "caddyfile", "--force"),
)

FRONTS: Final = {kind.program: kind for kind in (NGINX, HAPROXY, CADDY)}


class FrontedTunnel(LabTunnel):
    """An exit without TLS of its own behind a front end, and its client. The front end runs all the time."""

    exit_ports = tuple(PORTS.values())

    def __init__(self, lab: Lab, kind: FrontKind, *, idle: int) -> None:
        """``idle`` are the seconds after which the front end cuts what is silent. Raises HostError."""
        self._kind = kind
        self._front_directory = lab.directory / "front"
        self._front_directory.mkdir()
        authority = make_certificate(self._front_directory / "both.pem")
        super().__init__(lab)
        edit(self.profile, {"tls": {"ca": f'"""\n{authority}"""'}})
        self._file = self._configure(idle)
        self._front: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Exit, front end and client, connected."""
        self.start_exit()
        self.start_front()
        self.start_client()
        self.wait_connected()

    def start_front(self) -> None:
        """Start the front end and wait until it listens."""
        environment = {"HOME": str(self._front_directory), "XDG_DATA_HOME": str(self._front_directory)}
        self._front = self.lab.start(EXIT, self._argv(self._kind.arguments), env=environment)
        self.lab.wait_listening(EXIT, ROAD_PORT)

    def stop_front(self) -> None:
        """End the front end as SIGTERM does: every connection through it is cut."""
        assert self._front is not None
        self.lab.stop(self._front)

    def reload_front(self) -> None:
        """Have it read its configuration again: it soon cuts what went through the old one."""
        assert self._front is not None
        if self._kind.reload_signal is not None:
            self._front.send_signal(self._kind.reload_signal)
        else:
            self.lab.run(
                EXIT, self._argv(self._kind.reload_command), env={"HOME": str(self._front_directory)}
            )

    def front_output(self) -> str:
        """What the front end has printed."""
        return "" if self._front is None else self.lab.output(self._front)

    def _init_exit(self) -> None:
        roads = []
        for name, domain in (("upstream", DOMAIN_A), ("downstream", DOMAIN_B)):
            roads += [f"--{name}", f"wss://{domain}:{ROAD_PORT}"]
            roads += [f"--listen-{name}", f"127.0.0.1:{PORTS[name]}"]
        self.htvpn(
            EXIT, "server", "init", "--dir", str(self.directory), "--behind-proxy", *roads,
            "--allow-egress", *ALLOWED_EGRESS, "--dns", TARGET_ADDRESS,
        )  # fmt: skip

    def _configure(self, idle: int) -> Path:
        listen = parse_server((self.directory / "server.toml").read_text()).listen
        path = self._front_directory / self._kind.file
        path.write_text(
            self._kind.configuration.format(
                directory=self._front_directory,
                port=ROAD_PORT,
                idle=idle,
                domain_a=DOMAIN_A,
                domain_b=DOMAIN_B,
                upstream=listen.upstream.path,
                downstream=listen.downstream.path,
                upstream_port=PORTS["upstream"],
                downstream_port=PORTS["downstream"],
            )
        )
        return path

    def _argv(self, arguments: tuple[str, ...]) -> list[str]:
        program = shutil.which(self._kind.program, path=_SEARCH_PATH)
        if program is None:
            raise HostError(f"{self._kind.program} is not installed: ./scripts/chaos installs it")
        places = {"file": str(self._file), "directory": str(self._front_directory)}
        return [program, *(word.format(**places) for word in arguments)]
