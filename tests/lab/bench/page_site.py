"""The pages of the everyday rows: 60 resources from six names, served by nginx over TLS and HTTP/2.

Each page has names and addresses of its own, so that a page can be new to a tunnel; the target's name server
knows them all. The files of a page are written when it is first asked for.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from lab import namespaces
from lab.audit.sites import Resource, Site
from lab.audit.webhost import write_site
from lab.nameserver import Zone
from lab.nginx import HTTPS_PORT, start_https_sites
from lab.topology import TARGET, UPLINK, Lab

MAX_PAGES: Final = 40
"""Pages that a lab has addresses for."""

NAMES: Final = ("www", "static", "img0", "img1", "media", "ads")
"""First parts of the six names of a page."""

DOMAIN: Final = "page.test"

PICTURE_BYTES: Final = (4_000, 9_000, 14_000, 22_000, 38_000, 60_000)
"""Sizes of the pictures, in turn: a page has 1.7 MB, which is between the median of phones and of desks."""

FIRST_ADDRESS: Final = 10
"""Last byte of the first name's address in the target's network."""


def name_of(page: int, place: int) -> str:
    """Return the name of a page with this place in NAMES."""
    return f"{NAMES[place]}-{page}.{DOMAIN}"


def address_of(page: int, place: int) -> str:
    """Return the address of the same name. Raises HostError beyond MAX_PAGES."""
    if page >= MAX_PAGES:
        raise HostError(f"there are addresses for {MAX_PAGES} pages; ask for fewer rounds")
    return f"198.51.100.{FIRST_ADDRESS + page * len(NAMES) + place}"


def zone() -> Zone:
    """Return the records of all pages."""
    return {
        name_of(page, place): [("A", address_of(page, place))]
        for page in range(MAX_PAGES)
        for place in range(len(NAMES))
    }


def make_page(page: int) -> Site:
    """Return a page of 60 resources: the document, 2 style sheets, 7 scripts and 50 pictures.

    Two scripts lead to 16 of the pictures, so two of the names are found late.
    """
    pictures = [
        Resource(name_of(page, 2 + number % 2), f"/picture{number}.png", "image", _picture_size(number))
        for number in range(50)
    ]
    for picture in pictures[:6]:
        picture.host = name_of(page, 4)
    for picture in pictures[6:16]:
        picture.host = name_of(page, 5)
    sheets = [
        Resource(name_of(page, 1), "/sheet0.css", "css", 40_000),
        Resource(name_of(page, 1), "/sheet1.css", "css", 15_000),
    ]
    scripts = [Resource(name_of(page, 1), f"/script{number}.js", "js", 45_000) for number in range(7)]
    scripts[0].children = pictures[:6]
    scripts[1].children = pictures[6:16]
    document = Resource(name_of(page, 0), "/", "html", 30_000, children=[*sheets, *scripts, *pictures[16:]])
    return Site(page, document)


def write_page(lab: Lab, page: int) -> str:
    """Write the files of a page unless they are there; return its address for a browser."""
    root = lab.directory / "pages"
    address_of(page, 0)
    if not (root / name_of(page, 0)).exists():
        write_site(root, make_page(page))
    return f"https://{name_of(page, 0)}/"


def start_pages(lab: Lab) -> None:
    """Serve the pages on the target and return when the server listens. Raises HostError."""
    target = lab.namespace(TARGET)
    addresses = [address_of(page, place) for page in range(MAX_PAGES) for place in range(len(NAMES))]
    batch = "".join(f"address add {address}/24 dev {UPLINK}\n" for address in addresses)
    namespaces.command(["ip", "-n", target, "-batch", "-"], text=batch)
    directory = lab.directory
    namespaces.command(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "30", "-subj", f"/CN={DOMAIN}", "-addext", f"subjectAltName=DNS:*.{DOMAIN}",
            "-keyout", str(directory / "pages.key"), "-out", str(directory / "pages.pem"),
        ]
    )  # fmt: skip
    start_https_sites(lab, "pages", directory / "pages", directory / "pages.pem", directory / "pages.key")
    lab.wait_listening(TARGET, HTTPS_PORT)


def key_pin(key: Path) -> str:
    """Return the pin of a private key as Chromium takes it: SHA-256 of the public key's DER, base64."""
    argv = ["openssl", "pkey", "-in", str(key), "-pubout", "-outform", "DER"]
    public = subprocess.run(argv, capture_output=True, check=True).stdout
    return base64.b64encode(hashlib.sha256(public).digest()).decode()


def _picture_size(number: int) -> int:
    return PICTURE_BYTES[number % len(PICTURE_BYTES)]
