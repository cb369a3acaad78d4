"""What every configuration of nginx in the tests needs."""

from __future__ import annotations

from typing import Final

TEMPORARY_PATHS: Final = """\
  client_body_temp_path {directory}/nginx-body;
  proxy_temp_path {directory}/nginx-proxy;
  fastcgi_temp_path {directory}/nginx-fastcgi;
  uwsgi_temp_path {directory}/nginx-uwsgi;
  scgi_temp_path {directory}/nginx-scgi;
"""
"""For the part `http`, to be formatted with ``directory``: the packaged paths belong to another user."""
