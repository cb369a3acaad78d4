"""nginx in the tests: what every configuration of it needs, and sites by HTTPS on the target."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from lab.topology import TARGET, Lab

HTTPS_PORT: Final = 443

TEMPORARY_PATHS: Final = """\
  client_body_temp_path {directory}/nginx-body;
  proxy_temp_path {directory}/nginx-proxy;
  fastcgi_temp_path {directory}/nginx-fastcgi;
  uwsgi_temp_path {directory}/nginx-uwsgi;
  scgi_temp_path {directory}/nginx-scgi;
"""
"""For the part `http`, to be formatted with ``directory``: the packaged paths belong to another user."""

_HTTPS_SITES: Final = """\
user root;
worker_processes 1;
pid {directory}/{name}.pid;
error_log {directory}/{name}-error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  types {{ text/html html; text/css css; text/javascript js; image/png png; }}
  server {{
    listen {port} ssl http2 backlog=1024;
    server_name _;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    {more}
    root {root}/$host;
    index index.html;
  }}
}}
"""


def start_https_sites(
    lab: Lab, name: str, root: Path, certificate: Path, key: Path, *, more: str = ""
) -> None:
    """Serve a directory in ``root`` for each name, by HTTPS and HTTP/2, on the target.

    ``name`` is the first part of the files that nginx writes; ``more`` are further lines of its server.
    HostError when nginx is missing.
    """
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin")
    if nginx is None:
        raise HostError("nginx is not installed: install the package nginx-light.")
    configuration = lab.directory / f"{name}.conf"
    configuration.write_text(
        _HTTPS_SITES.format(
            directory=lab.directory, name=name, port=HTTPS_PORT, root=root, certificate=certificate, key=key,
            more=more,
        )
    )  # fmt: skip
    lab.start(TARGET, [nginx, "-c", str(configuration), "-p", str(lab.directory), "-g", "daemon off;"])
