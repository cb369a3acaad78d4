"""What users feel, over 50 ms and 100 Mbit/s: pages, first bytes, names, a clone, a call beside an upload."""

from __future__ import annotations

import itertools
import json
import secrets
import socket
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from halftunnel_vpn.errors import HostError
from lab import namespaces
from lab.bench import page_site, repository, roads, traffic
from lab.bench.measurements import Measurement, Scale
from lab.bench.peers import Peer
from lab.bench.rows import DIRECTIONS, EVERYDAY_LINE, EVERYDAY_LOSSES, page_row
from lab.bench.summary import percentile
from lab.nameserver import Zone
from lab.target import DNS_PORT, SMALL_FILE_NAME, WEB_PORT
from lab.topology import CLIENT, TARGET, TARGET_ADDRESS, Lab

NEW_PORTS: Final = 20_000
"""The first of the target's ports that all lead to its web server: each is a destination of its own."""

CALL_PORT: Final = 5303

LEAST_RESOURCES: Final = 59
"""What a browser must have loaded besides the document."""

PROBES_PER_SECOND: Final = 4
"""First bytes and names that are timed for each second of a run."""

PROBE_TIMEOUT: Final = 10.0

_PORTS: Final = (
    "add table ip everyday\n"
    "add chain ip everyday incoming { type nat hook prerouting priority dstnat; }\n"
    f"add rule ip everyday incoming tcp dport {NEW_PORTS}-{NEW_PORTS + 9999} redirect to :{WEB_PORT}\n"
)
_REQUEST: Final = f"GET /{SMALL_FILE_NAME} HTTP/1.0\r\n\r\n".encode()
_NEW_NAME: Final = "new.test"
_serials: Final = itertools.count()


def names() -> Zone:
    """Return what the target's name server has to know for these rows."""
    return {**page_site.zone(), f"*.{_NEW_NAME}": [("A", TARGET_ADDRESS)]}


def start_services(lab: Lab) -> None:
    """Start the servers of these rows on the target. Raises HostError."""
    page_site.start_pages(lab)
    repository.start_repository(lab)
    namespaces.command(["ip", "netns", "exec", lab.namespace(TARGET), "nft", "-f", "-"], text=_PORTS)
    namespaces.configure_resolver(lab.namespace(CLIENT), TARGET_ADDRESS)


def pages(loss: int, peer: Peer, scale: Scale) -> dict[str, float]:
    """Load pages that are new to the tunnel, and one of them again; ``loss`` is in thousandths."""
    lab, count = peer.lab, max(1, round(scale.seconds))
    new = [page_site.write_page(lab, next(peer.new_pages)) for _ in range(count)]
    pin = page_site.key_pin(lab.directory / "pages.key")
    warm_up = page_site.write_page(lab, 0)
    argv = [sys.executable, "-m", "lab.bench.page_loads", pin, warm_up, *new, *[new[-1]] * count]
    roads.set_loss(lab, loss)
    try:
        output = lab.run(CLIENT, argv, timeout=60 + 30 * len(argv)).stdout
    finally:
        roads.set_loss(lab, 0)
    seconds = [_seconds(json.loads(line)) for line in output.splitlines()][1:]
    return {
        page_row(loss, "new"): percentile(seconds[:count], 0.5),
        page_row(loss, "again"): percentile(seconds[count:], 0.5),
    }


def _seconds(load: dict[str, Any]) -> float:
    if load["error"] is not None or load["resources"] < LEAST_RESOURCES:
        raise HostError(f"a page did not load: {load['error']}, {load['resources']} resources")
    return float(load["seconds"])


def first_bytes(peer: Peer, scale: Scale) -> dict[str, float]:
    """A new connection to a destination that is new, and to one that is not: until the first byte, in ms."""
    count = _probes(scale)
    new = [_first_byte(peer.lab, NEW_PORTS + next(_serials)) for _ in range(count)]
    again = [_first_byte(peer.lab, WEB_PORT) for _ in range(count)]
    return {"first-byte-new": percentile(new, 0.5), "first-byte-again": percentile(again, 0.5)}


def _first_byte(lab: Lab, port: int) -> float:
    with lab.inside(CLIENT), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(PROBE_TIMEOUT)

        def ask() -> None:
            sock.connect((TARGET_ADDRESS, port))
            sock.sendall(_REQUEST)
            if not sock.recv(1):
                raise HostError(f"the target closed the connection to port {port}")

        return _milliseconds(ask)


def lookups(peer: Peer, scale: Scale) -> dict[str, float]:
    """Ask for names that were never asked for, and for each once more, in ms."""
    new, again = [], []
    for _ in range(_probes(scale)):
        name = f"n{next(_serials)}.{_NEW_NAME}"
        new.append(_lookup(peer.lab, name))
        again.append(_lookup(peer.lab, name))
    return {"dns-new": percentile(new, 0.5), "dns-again": percentile(again, 0.5)}


def _lookup(lab: Lab, name: str) -> float:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    identifier = secrets.randbits(16)
    message = struct.pack(">HHHHHH", identifier, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\x01\0\x01"
    with lab.inside(CLIENT), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PROBE_TIMEOUT)

        def ask() -> None:
            sock.sendto(message, (TARGET_ADDRESS, DNS_PORT))
            answer = sock.recv(2048)
            if struct.unpack_from(">HHHH", answer)[::3] != (identifier, 1):
                raise HostError(f"no address came for {name}")

        return _milliseconds(ask)


def cloning(peer: Peer, scale: Scale) -> dict[str, float]:
    """git clone of a repository of 5,000 objects."""
    return {"clone": repository.clone(peer.lab)}


def call(peer: Peer, scale: Scale) -> dict[str, float]:
    """Datagrams as a video call sends them, both ways, beside an upload."""
    lab, seconds = peer.lab, scale.seconds * 2
    module = [sys.executable, "-m", "lab.bench.call"]
    answering = lab.start(TARGET, [*module, "answer", str(CALL_PORT), f"{seconds}"])
    try:
        deadline = time.monotonic() + PROBE_TIMEOUT
        while "waiting\n" not in lab.output(answering):
            if time.monotonic() > deadline:
                raise HostError(f"the called program does not start: {lab.output(answering)}")
            time.sleep(0.01)
        with traffic.bulk_flow(lab, "up", seconds * 2 + 10):
            time.sleep(scale.road_warm_up)
            calling = [*module, "call", TARGET_ADDRESS, str(CALL_PORT), f"{seconds}"]
            client = json.loads(lab.run(CLIENT, calling, timeout=seconds + 20).stdout)
            answering.wait(PROBE_TIMEOUT)
    finally:
        lab.stop(answering)
    target = json.loads(lab.output(answering).splitlines()[-1])
    values: dict[str, float] = {}
    for way, sender, receiver in zip(DIRECTIONS, (client, target), (target, client), strict=True):
        delays = receiver["delays"]
        if not delays:
            raise HostError(f"nothing of the call came {way}")
        values[f"call-{way}-loss"] = 100 * (1 - len(delays) / sender["sent"])
        values[f"call-{way}-p99"] = 1000 * percentile(delays, 0.99)
    return values


def _probes(scale: Scale) -> int:
    return max(3, round(scale.seconds * PROBES_PER_SECOND))


def _milliseconds(action: Callable[[], None]) -> float:
    began = time.monotonic()
    action()
    return 1000 * (time.monotonic() - began)


def _measurements() -> list[Measurement]:
    made: list[tuple[str, tuple[str, ...], Callable[[Peer, Scale], dict[str, float]]]] = [
        (f"page-{loss / 10:g}", (page_row(loss, "new"), page_row(loss, "again")), partial(pages, loss))
        for loss in EVERYDAY_LOSSES
    ]
    calls = tuple(f"call-{way}-{what}" for way in DIRECTIONS for what in ("loss", "p99"))
    made += [
        ("first-byte", ("first-byte-new", "first-byte-again"), first_bytes),
        ("dns", ("dns-new", "dns-again"), lookups),
        ("clone", ("clone",), cloning),
        ("call", calls, call),
    ]
    return [
        Measurement(name, rows, run, line=EVERYDAY_LINE, names=names, prepare=start_services)
        for name, rows, run in made
    ]


EVERYDAY: Final = tuple(_measurements())
"""On a line as many homes have it."""
