"""`htvpn bugreport`: one archive with what a developer needs, without keys, secret paths and names."""

from __future__ import annotations

import asyncio
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from halftunnel_vpn import __build__
from halftunnel_vpn.cli import check, daemon_process, logs, profiles
from halftunnel_vpn.client.diagnosis.redaction import Redaction
from halftunnel_vpn.config.client import ClientProfile, views
from halftunnel_vpn.control import requests
from halftunnel_vpn.errors import HalfTunnelError, HostError

MAX_PART = 4 * 1024 * 1024
"""Bytes of one file in the archive; the end of a longer one is kept."""

COMMAND_TIMEOUT = 5.0

COMMANDS = (
    ("rules", ("ip", "rule", "show")),
    ("rules-v6", ("ip", "-6", "rule", "show")),
    ("routes", ("ip", "route", "show", "table", "all")),
    ("routes-v6", ("ip", "-6", "route", "show", "table", "all")),
    ("links", ("ip", "-details", "link", "show")),
    ("firewall", ("nft", "list", "ruleset")),
    ("resolver", ("resolvectl", "status")),
)
"""What is asked of the host; nothing is changed."""

_HARDWARE_ADDRESS = re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b")


def run(options: Namespace) -> int:
    """Write the archive, readable by its owner alone, and print where it is. Raises HostError."""
    path = Path(options.output or f"halftunnel-report-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HostError(f"{path} cannot be written: {error.strerror}") from error
    redaction = Redaction(secrets_of(_profile(options)))
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in _parts(options):
            safe = _HARDWARE_ADDRESS.sub("<hardware address>", redaction.text(text))
            content = safe.encode(errors="replace")[-MAX_PART:]
            member = tarfile.TarInfo(f"halftunnel-report/{name}")
            member.size, member.mtime, member.mode = len(content), int(time.time()), 0o600
            archive.addfile(member, io.BytesIO(content))
    print(f"{path}: no keys, secret paths, names or public addresses are in it; look before you send it")
    return 0


def secrets_of(profile: ClientProfile | None) -> dict[str, list[str]]:
    """Return what only this profile tells: names, URL paths, the client's own name for itself."""
    if profile is None:
        return {}
    roads = [road for view in views(profile) for road in (view.upstream, view.downstream)]
    urls = [urlsplit(url) for road in roads for url in road.urls]
    return {
        "path": [part.path.strip("/") for part in urls],
        "host": [host for part in urls if (host := part.hostname)],
        "name": [
            profile.name,
            *(exit.name for exit in profile.exits),
            *profile.dns.hosts,
            *profile.dns.split,
            *profile.dns.block,
        ],
    }


def _profile(options: Namespace) -> ClientProfile | None:
    try:
        return profiles.user_reader(options.profile)()
    except HalfTunnelError:
        return None  # its fault stands in check.json


def _parts(options: Namespace) -> Iterator[tuple[str, str]]:
    """Yield names and texts of the files."""
    uname = platform.uname()
    yield (
        "versions.txt",
        f"htvpn {__build__}\nPython {sys.version}\n{uname.system} {uname.release} {uname.machine}\n"
        f"{_file('/etc/os-release')}",
    )
    findings = asyncio.run(check.diagnose(options))
    yield "check.json", json.dumps([asdict(finding) for finding in findings], indent=2)
    for name, read in (("status.json", _status), ("logs.txt", _logs)):
        try:
            yield name, read(options)
        except HalfTunnelError as error:
            yield name, str(error)
    yield "resolv.conf", _file("/etc/resolv.conf")
    for name, argv in COMMANDS:
        yield f"{name}.txt", _output(argv)


def _status(options: Namespace) -> str:
    return json.dumps(requests.read_status(options.socket), indent=2)


def _logs(options: Namespace) -> str:
    answer = daemon_process.command(options.socket, "GET", "/v1/logs?since=0&wait=0")
    return "\n".join(logs.text_of(line) for line in answer["lines"])


def _file(name: str) -> str:
    try:
        with open(name, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_PART)
    except OSError as error:
        return f"{error.strerror}\n"


def _output(argv: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            timeout=COMMAND_TIMEOUT, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{argv[0]}: {error}\n"
    return done.stdout
