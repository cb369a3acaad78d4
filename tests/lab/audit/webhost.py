"""The target's web server for the seeded sites: nginx with TLS and HTTP/2, and the names that lead to it."""

from __future__ import annotations

import json
import random
import struct
import sys
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from halftunnel_vpn.protocol.certificates import make_authority, make_server_certificate
from lab import namespaces
from lab.audit.sites import MAX_SHEETS, Resource, Site, variant_path
from lab.nginx import HTTPS_PORT, start_https_sites
from lab.target import DNS_PORT
from lab.topology import TARGET, TARGET_ADDRESS, TARGET_ADDRESS6, UPLINK, Lab

ADDRESSES: Final = tuple(f"198.51.100.{10 + number}" for number in range(8))
"""Names of one page have different addresses, so that a browser opens a connection to each."""


def start_sites(lab: Lab, sites: Sequence[Site]) -> None:
    """Serve the sites on the target, and return when web and name server listen. Raises HostError."""
    for address in ADDRESSES:
        words = f"address add {address}/24 dev {UPLINK}"
        namespaces.command(["ip", "-n", lab.namespace(TARGET), *words.split()])
    root = lab.directory / "sites"
    for site in sites:
        write_site(root, site)
    certificate = _certificate(lab, sites)
    start_https_sites(lab, "sites", root, certificate, certificate, more="ssl_session_tickets off;")
    zone = lab.directory / "sites-zone.json"
    names = sorted({name for site in sites for name in site.hosts()})
    zone.write_text(json.dumps({name: [("A", address_of(name))] for name in names}))
    nameserver = [sys.executable, "-m", "lab.nameserver", "--zone", str(zone)]
    lab.start(TARGET, [*nameserver, TARGET_ADDRESS, TARGET_ADDRESS6])
    for port in (HTTPS_PORT, DNS_PORT):
        lab.wait_listening(TARGET, port)


def address_of(name: str) -> str:
    """Return the address of a name: its own one among those of the same page, as far as there are enough."""
    place = {"www": 0, "static": 1, "cdn0": 2, "cdn1": 3, "ads": 4}[name.partition(".")[0]]
    return ADDRESSES[place]


def write_site(root: Path, site: Site) -> None:
    """Write the files of a site below ``root``, a directory for each name."""
    draw = random.Random(f"content {site.number} {site.root.size}")
    for resource in site.root.walk():
        for path, size in resource.files():
            file = root / resource.host / path.lstrip("/")
            if resource.kind == "html":
                file = file / "index.html"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content(draw, resource, size))


def content(draw: random.Random, resource: Resource, size: int) -> bytes:
    """Return a file that makes a browser load the resource's children, filled up to ``size`` bytes."""
    if resource.kind in ("image", "variant"):
        return _picture(draw, size)
    text = {"html": _page, "css": _style, "js": _script}[resource.kind](resource)
    opening, closing = {"html": ("<!--", "-->"), "css": ("/*", "*/"), "js": ("/*", "*/")}[resource.kind]
    fill = max(0, size - len(text) - len(opening) - len(closing))
    return (text + opening + draw.randbytes(fill // 2 + 1).hex()[:fill] + closing).encode()


def _url(resource: Resource) -> str:
    return f"https://{resource.host}{resource.path}"


def _page(resource: Resource) -> str:
    by_kind = {
        kind: [_url(c) for c in resource.children if c.kind == kind] for kind in ("css", "js", "image")
    }
    style = "".join(f'<link rel="stylesheet" href="{url}">' for url in by_kind["css"])
    script = "".join(f'<script src="{url}"></script>' for url in by_kind["js"])
    image = "".join(f'<img src="{url}">' for url in by_kind["image"])
    boxes = "".join(f'<p id="d{index}">text</p>' for index in range(MAX_SHEETS))
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        f"<title>page</title>{style}</head><body>{boxes}{image}{script}</body></html>"
    )


def _style(resource: Resource) -> str:
    pictures = ",".join(f"url({_url(child)})" for child in resource.children)
    # A later rule for the same element would replace an earlier one: every sheet has an element of its own.
    index = resource.path[-5]
    return f"#d{index}{{background-image:{pictures}}}" if pictures else "p{margin:0}"


def _script(resource: Resource) -> str:
    urls = [_url(child) for child in resource.children if child.kind != "variant"]
    lines = [f"for(const u of {json.dumps(urls)}){{const i=new Image();i.src=u;document.body.append(i)}}"]
    for child in resource.children:
        if child.kind == "variant":
            url = f"https://{child.host}{variant_path(child.path, 0)}".replace("-0.", "-${k}.")
            lines.append(
                f"{{const k=Math.floor(Math.random()*6);const i=new Image();i.src=`{url}`;"
                "document.body.append(i)}"
            )
    return "\n".join(lines)


def _picture(draw: random.Random, size: int) -> bytes:
    """Return a PNG picture of one pixel with a private chunk of random bytes, which browsers skip."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    tail = chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    return head + chunk(b"raNd", draw.randbytes(max(0, size - len(head) - len(tail) - 12))) + tail


def _certificate(lab: Lab, sites: Sequence[Site]) -> Path:
    now = datetime.now(UTC)
    began, ends = now - timedelta(days=1), now + timedelta(days=2)
    authority = make_authority("sites", not_before=began, not_after=ends)
    wildcards = sorted({"*." + name.partition(".")[2] for site in sites for name in site.hosts()})
    # One certificate for all would be larger than any real one; nobody checks the names here.
    made = make_server_certificate(authority, wildcards[:4], not_before=began, not_after=ends)
    path = lab.directory / "sites.pem"
    path.write_bytes(made.certificate + made.private_key)
    return path
