"""What an exit reads from its directory, at its start and when it reloads: read and checked as a whole."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from halftunnel_vpn.config.server import ListenerConfig, ServerConfig
from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.protocol.keys import Direction, KeyPair, parse_key_pair
from halftunnel_vpn.transport.decoy_site import DEFAULT_PAGE, Site
from halftunnel_vpn.transport.tls import server_context

Place = tuple[str, int]
"""Address and port of a listener."""

Stamps = tuple[tuple[int, int, int], ...]
"""mtime_ns, size and inode of each file; zeros for one that is not there."""


@dataclass(frozen=True, slots=True)
class ExitFiles:
    """The configuration, the exit's key pair, and what each listener shows. Clients are not part of it."""

    config: ServerConfig
    keys: KeyPair
    site: Site
    contexts: dict[Place, ssl.SSLContext | None]

    @classmethod
    def read(cls, directory: Path, config: ServerConfig) -> ExitFiles:
        """Read everything that ``config`` names. Raises ConfigError with one sentence."""
        return cls(
            config,
            read_keys(directory / config.server.private_key),
            _read_site(directory, config),
            read_contexts(directory, config),
        )


def served(config: ServerConfig) -> dict[Place, list[tuple[Direction, ListenerConfig]]]:
    """Return which directions arrive at each address and port: one listener may serve both."""
    places: dict[Place, list[tuple[Direction, ListenerConfig]]] = {}
    for direction, listener in (
        (Direction.UPSTREAM, config.listen.upstream),
        (Direction.DOWNSTREAM, config.listen.downstream),
    ):
        places.setdefault((listener.address, listener.port), []).append((direction, listener))
    return places


def read_contexts(directory: Path, config: ServerConfig) -> dict[Place, ssl.SSLContext | None]:
    """Read the certificates and their keys. None stands for a listener without TLS. Raises ConfigError."""
    contexts: dict[Place, ssl.SSLContext | None] = {}
    for place, members in served(config).items():
        listener = members[0][1]
        contexts[place] = None
        if listener.tls:
            contexts[place] = server_context(
                directory / listener.certificate, directory / listener.certificate_key
            )
    return contexts


def certificate_stamps(directory: Path, config: ServerConfig) -> Stamps:
    """Return what changes when a certificate or key is written again."""

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
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The private key {path} cannot be read: {error}") from None
    return parse_key_pair(text, str(path))


def _read_site(directory: Path, config: ServerConfig) -> Site:
    if not config.server.site:
        return Site(page=DEFAULT_PAGE)
    try:
        return Site(page=(directory / config.server.site).read_bytes())
    except OSError as error:
        raise ConfigError(
            f"[server] site: {config.server.site} cannot be read ({error.strerror}); name a file in "
            f"{directory}."
        ) from None
