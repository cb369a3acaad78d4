"""The files that an exit reads from its directory at start and at reload, checked as a whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from halftunnel_vpn.config.server import ListenerConfig, ServerConfig
from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.protocol.keys import Direction, KeyPair, parse_key_pair
from halftunnel_vpn.storage.bounded_file import read_regular
from halftunnel_vpn.transport.admission import parse_address
from halftunnel_vpn.transport.certificate_store import CertificateFiles, CertificateStore
from halftunnel_vpn.transport.decoy_site import DEFAULT_PAGE, Site, Sites

MAX_KEY_FILE = 4096
"""The most bytes of the exit's key file, which has 45."""

Place = tuple[str, int]
"""Address and port of a listener."""

Stamps = tuple[tuple[int, int, int], ...]
"""mtime_ns, size and inode of each file; zeros for a missing file."""


@dataclass(frozen=True, slots=True)
class ExitFiles:
    """The configuration, the exit's key pair, and what each listener shows. Without the clients."""

    config: ServerConfig
    keys: KeyPair
    sites: dict[Place, Sites]
    certificates: dict[Place, CertificateStore | None]

    @classmethod
    def read(cls, directory: Path, config: ServerConfig) -> ExitFiles:
        """Read all files that ``config`` names. Raises ConfigError with one sentence."""
        return cls(
            config,
            read_keys(directory / config.server.private_key),
            _read_sites(directory, config),
            read_certificates(directory, config),
        )


def served(config: ServerConfig) -> dict[Place, list[tuple[Direction, ListenerConfig]]]:
    """Return the directions of each address and port. One listener may serve both directions."""
    places: dict[Place, list[tuple[Direction, ListenerConfig]]] = {}
    for direction, listener in (
        (Direction.UPSTREAM, config.listen.upstream),
        (Direction.DOWNSTREAM, config.listen.downstream),
    ):
        places.setdefault((listener.address, listener.port), []).append((direction, listener))
    return places


def read_certificates(directory: Path, config: ServerConfig) -> dict[Place, CertificateStore | None]:
    """Read the certificates and their keys; None for a listener without TLS. Raises ConfigError."""
    return {
        place: CertificateStore(
            CertificateFiles(directory / listener.certificate, directory / listener.certificate_key)
            for _, listener in members
        )
        if members[0][1].tls
        else None
        for place, members in served(config).items()
    }


def certificate_stamps(directory: Path, config: ServerConfig) -> Stamps:
    """Return stamps that differ when a certificate or key file is written again."""

    def stamps() -> Iterator[tuple[int, int, int]]:
        for listener in (config.listen.upstream, config.listen.downstream):
            for name in (listener.certificate, listener.certificate_key) if listener.tls else ():
                stamp = (0, 0, 0)
                with contextlib.suppress(OSError):
                    status = (directory / name).stat()
                    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
                yield stamp

    return tuple(stamps())


def read_keys(path: Path) -> KeyPair:
    """Return the exit's key pair. Raises ConfigError."""
    try:
        text = read_regular(path, MAX_KEY_FILE).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The private key {path} cannot be read: {error}") from None
    return parse_key_pair(text, str(path))


def _read_sites(directory: Path, config: ServerConfig) -> dict[Place, Sites]:
    """Return the pages by host. With an address in the URL the page for unknown hosts is used."""
    sites: dict[Place, Sites] = {}
    for place, members in served(config).items():
        plainest = Site(page=DEFAULT_PAGE)
        by_host: dict[str, Site] = {}
        for direction, listener in members:
            is_upstream = direction is Direction.UPSTREAM
            site = _read_site(directory, config, listener, "upstream" if is_upstream else "downstream")
            public = config.public.upstream if is_upstream else config.public.downstream
            for url in public.urls:
                host = (urlsplit(url).hostname or "").rstrip(".")
                by_host.setdefault(host, site)
                if parse_address(host) is not None:
                    plainest = site
        sites[place] = Sites(plainest, by_host)
    return sites


def _read_site(directory: Path, config: ServerConfig, listener: ListenerConfig, direction: str) -> Site:
    name = listener.site or config.server.site
    if not name:
        return Site(page=DEFAULT_PAGE)
    try:
        return Site.read(directory / name)
    except OSError as error:
        key = f"[listen.{direction}]" if listener.site else "[server]"
        raise ConfigError(
            f"{key} site: {name} cannot be read ({error.strerror}); name a file or directory in {directory}."
        ) from None
