"""What the demo tries from the client's host, with the tools that everybody has: curl, dig, ping."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab import Lab, Target
from lab.demo.report import Verdict
from lab.demo.traffic import Traffic
from lab.target import FILE_NAME, FILE_SIZE, WEB_NAME, WEB_PORT
from lab.topology import CLIENT, TARGET_ADDRESS, TARGET_ADDRESS6

TRANSFER_TIMEOUT = 180.0
"""Seconds for one transfer of 100 MB."""

PINGS = 10
PING_TIMEOUT = 20
"""Seconds until all of them must be answered; one that is lost is made up for by another."""

UNRELATED_SERVER = "192.0.2.53"
"""Nobody: a query sent there is answered all the same, through the tunnel."""

LEAST_SHARE = 0.98
"""Of a road's payload, what must go the road's own way during a transfer that way."""

MOST_UPSTREAM = 0.01
"""Of a download's payload, what may go up."""


def reaches(lab: Lab, address: str) -> bool:
    """Whether the client gets an answer to one ping within a second."""
    return lab.run(CLIENT, ["ping", "-c", "1", "-W", "1", address], check=False).returncode == 0


def listens(lab: Lab, host: str, port: int) -> bool:
    """Whether something in ``host`` listens on a TCP port."""
    return bool(lab.run(host, ["ss", "-Htln", f"sport = :{port}"]).stdout.strip())


def host_state(lab: Lab) -> str:
    """What the tunnel changes on the client's host, as text to compare."""
    commands = (
        *(
            ["ip", family, *words]
            for family in ("-4", "-6")
            for words in (["rule"], ["route", "show", "table", "all"])
        ),
        ["ip", "-brief", "address"],
        ["nft", "list", "ruleset"],
        ["cat", "/etc/resolv.conf"],
    )
    return "\n".join(lab.run(CLIENT, command).stdout for command in commands)


def names(lab: Lab) -> Iterator[Verdict]:
    """dig, by UDP and TCP, A and AAAA, also of a server that is not there."""
    for what, arguments, expected in (
        ("dig, A", [WEB_NAME, "A"], TARGET_ADDRESS),
        ("dig, AAAA by TCP", [WEB_NAME, "AAAA", "+tcp"], TARGET_ADDRESS6),
        (f"dig at {UNRELATED_SERVER}", ["target.test", "A", f"@{UNRELATED_SERVER}"], TARGET_ADDRESS),
    ):
        answer = lab.run(CLIENT, ["dig", "+short", "+time=20", "+tries=1", *arguments], check=False)
        lines = answer.stdout.split()
        yield Verdict(
            what, bool(lines) and lines[-1] == expected, f"{arguments[0]} is {' '.join(lines) or 'unknown'}"
        )


def pings(lab: Lab) -> Iterator[Verdict]:
    """ping, IPv4 and IPv6."""
    for version, address in ((4, TARGET_ADDRESS), (6, TARGET_ADDRESS6)):
        # without a deadline, ping waits for its last answer no longer than two round trips
        words = ["-n", "-q", "-c", str(PINGS), "-i", "0.1", "-w", str(PING_TIMEOUT), address]
        command = ["ping", f"-{version}", *words]
        output = lab.run(CLIENT, command, check=False).stdout
        counts = re.search(r"(\d+) packets transmitted, (\d+) received", output)
        times = re.search(r"= ([\d.]+)/([\d.]+)/([\d.]+)/", output)
        sent, answered = (int(counts[1]), int(counts[2])) if counts else (PINGS, 0)
        detail = f"{answered} of {sent} answered"
        if times:
            detail += f", least {times[1]} ms, mean {times[2]} ms"
        yield Verdict(f"ping, IPv{version}", answered == PINGS, detail)


def download(lab: Lab, target: Target, *, version: int) -> Verdict:
    """curl of the large file; IPv4 by its name, so that DNS has its part in it."""
    url = f"http://{WEB_NAME}:{WEB_PORT}/{FILE_NAME}" if version == 4 else target.file_url6
    path = lab.directory / f"download-{version}"
    speed, complaint = _curl(lab, [f"-{version}", "-o", str(path), url], "speed_download")
    return _transferred(f"curl down, IPv{version}", path, target.file_sha256, speed, complaint)


def upload(lab: Lab, target: Target) -> Verdict:
    """curl of the same file to the target."""
    name = "from-client"
    source = target.uploads.parent / FILE_NAME
    url = f"http://{TARGET_ADDRESS}:{WEB_PORT}/upload/{name}"
    speed, complaint = _curl(lab, ["-T", str(source), "-H", "Expect:", url], "speed_upload")
    return _transferred("curl up, IPv4", target.uploads / name, target.file_sha256, speed, complaint)


def splits(traffic: Mapping[str, Traffic]) -> Iterator[Verdict]:
    """Whether each road carried what it is there for."""
    for title, found in traffic.items():
        if "upload" in title:
            share = found.a_share_up
            yield Verdict(
                "upload: path A goes up",
                share >= LEAST_SHARE and found.a.payload_up >= FILE_SIZE,
                f"{share:.2%} of its payload (at least {LEAST_SHARE:.0%})",
            )
        else:
            share, up = found.b_share_down, found.share_up
            label = title.rpartition(" ")[2]
            yield Verdict(
                f"download, {label}: path B comes down",
                share >= LEAST_SHARE and found.b.payload_down >= FILE_SIZE,
                f"{share:.2%} of its payload (at least {LEAST_SHARE:.0%})",
            )
            yield Verdict(
                f"download, {label}: hardly anything goes up",
                up < MOST_UPSTREAM,
                f"{up:.2%} of all payload (less than {MOST_UPSTREAM:.0%})",
            )


def _curl(lab: Lab, arguments: list[str], speed: str) -> tuple[float, str]:
    """Bytes a second, and what curl complained about."""
    command = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*"]
    command += ["--max-time", str(TRANSFER_TIMEOUT), "--write-out", "\n%{json}"]
    try:
        done = lab.run(CLIENT, [*command, *arguments], check=False, timeout=TRANSFER_TIMEOUT + 5)
    except subprocess.TimeoutExpired:
        return 0.0, "curl did not end"
    if done.returncode:
        return 0.0, done.stderr.strip()
    return float(json.loads(done.stdout.rpartition("\n")[2])[speed]), ""


def _transferred(what: str, path: Path, expected: str, speed: float, complaint: str) -> Verdict:
    if complaint:
        return Verdict(what, False, complaint)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    good = found == expected
    return Verdict(what, good, f"{speed * 8 / 1e9:.2f} Gbit/s, SHA-256 {'as sent' if good else 'DIFFERS'}")
