"""The certificates of one listening socket, chosen by the name that a client asks for (SNI, RFC 6066).

A client that asks for no name, or for an unknown one, is shown a certificate that names none of
the hosts: a probed address does not reveal the domains behind it, nor does one domain reveal the other.
Sessions of TLS are never resumed, because one host would resume those of the other.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import ssl
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.protocol.certificates import draw_shape, expiry_of, make_self_signed, names_in
from halftunnel_vpn.storage.bounded_file import read_regular
from halftunnel_vpn.transport.tls import bare_server_context, server_context

MAX_PEM = 1024 * 1024
"""Bytes of a file with a certificate chain, or with a key."""

UNNAMED_HOST = "localhost"
"""The name in the certificate that is shown for unknown names."""

UNNAMED_VALIDITY = timedelta(days=3650)
"""How long that certificate is valid; it is made when the exit starts."""

UNNAMED_AGE = 365
"""Days, at most, by which its validity began before that."""


class CertificateFiles(NamedTuple):
    """Where a certificate chain and its key are, both in PEM form."""

    certificate: Path
    key: Path


class _Loaded(NamedTuple):
    """One certificate that is ready for use."""

    context: ssl.SSLContext
    names: frozenset[str]
    addresses: frozenset[str]
    expiry: float

    def is_for(self, name: str) -> bool:
        """Return whether it carries ``name``, as it is or by a wildcard for the first label."""
        return name in self.names or f"*.{name.partition('.')[2]}" in self.names


class CertificateStore:
    """Holds certificates by name. :meth:`adopt` changes what the next handshake shows, and nothing else."""

    def __init__(self, files: Iterable[CertificateFiles]) -> None:
        """Raises ConfigError when a file cannot be read or does not fit."""
        self._loaded = tuple(_load(pair) for pair in dict.fromkeys(files))
        self._unnamed: ssl.SSLContext | None = None

    def prepare(self) -> None:
        """Make the certificate for unknown names, which takes up to a second."""
        if self._unnamed is None:
            self._unnamed = _unnamed_context()

    @property
    def expiry(self) -> float:
        """When the first of the certificates expires, in seconds since 1970."""
        return min(loaded.expiry for loaded in self._loaded)

    def adopt(self, fresh: CertificateStore) -> None:
        """Show the certificates of ``fresh`` from the next handshake on; nothing else changes."""
        self._loaded = fresh._loaded

    def context_for(self, local_address: str) -> ssl.SSLContext:
        """Return a context for one connection to this address of the exit.

        Each connection has its own, so no session of one host can be resumed on another (200 us, 13 KiB).
        """
        self.prepare()
        context = bare_server_context()

        def choose(ssl_object: object, name: str | None, _: ssl.SSLContext) -> None:
            chosen = cast(Any, ssl_object)
            chosen.asked_name = name = None if name is None else name.lower().rstrip(".")
            chosen.context = self._without_name(local_address) if name is None else self._named(name)

        context.sni_callback = choose
        return context

    def _named(self, name: str) -> ssl.SSLContext | None:
        return next((loaded.context for loaded in self._loaded if loaded.is_for(name)), self._unnamed)

    def _without_name(self, local_address: str) -> ssl.SSLContext | None:
        """A client whose URL has an address asks for no name: it gets the certificate for addresses."""
        for loaded in self._loaded:
            if local_address in loaded.addresses:
                return loaded.context
        # Behind NAT no certificate has the local address.
        return next((loaded.context for loaded in self._loaded if loaded.addresses), self._unnamed)


def asked_name(ssl_object: object) -> str | None:
    """Return the name that the client of a connection has asked for in its handshake, in lower case."""
    return getattr(ssl_object, "asked_name", None)


def _unnamed_context() -> ssl.SSLContext:
    begin = datetime.now(UTC) - timedelta(seconds=secrets.randbelow(UNNAMED_AGE * 86400))
    made = make_self_signed(
        UNNAMED_HOST,
        not_before=begin,
        not_after=begin + UNNAMED_VALIDITY,
        shape=draw_shape(secrets.randbelow),
    )
    # The ssl module reads keys from files only, and an exit may have no place to write them.
    with _in_memory(made.certificate) as certificate, _in_memory(made.private_key) as key:
        return server_context(certificate, key)


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[Path]:
    """A file that holds ``content`` and is on no disk, see memfd_create(2)."""
    with open(os.memfd_create("htvpn"), "w+b") as file:
        file.write(content)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")


def _load(files: CertificateFiles) -> _Loaded:
    try:
        for path in files:  # OpenSSL would wait for a pipe, and read without a bound
            read_regular(path, MAX_PEM)
    except OSError as error:
        raise ConfigError(
            f"cannot read the certificate {files.certificate} and its key {files.key}: {error.strerror}"
        ) from error
    context = server_context(files.certificate, files.key)
    try:
        chain = read_regular(files.certificate, MAX_PEM)
        names, addresses = names_in(chain)
        expiry = expiry_of(chain)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read the certificate {files.certificate}: {error}; it must be a PEM file"
        ) from error
    return _Loaded(context, frozenset(names), frozenset(addresses), expiry)
