"""Invitations that wait for their client: a file for each, named by the digest of its secret."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from halftunnel_vpn.config import writing
from halftunnel_vpn.config.clients import CLIENTS
from halftunnel_vpn.config.invitation_entry import InvitationEntry, parse_invitation_entry
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.protocol.handshake_payloads import ExitStatus
from halftunnel_vpn.protocol.invitation import digest
from halftunnel_vpn.protocol.keys import encode_key
from halftunnel_vpn.storage.atomic_file import create_file, replace_file
from halftunnel_vpn.storage.bounded_file import read_regular

DIRECTORY: Final = "invitations"
SUFFIX: Final = ".toml"

MAX_INVITATION_FILE: Final = 4096
"""Bytes of the file of one invitation, which has some hundred."""

log = logging.getLogger(__name__)


class Invitations:
    """``admitted`` is called when a client was added to the list, ``has_room`` before.

    Dropped: ``invitation-not-written``, ``invitation-list-full``.
    """

    def __init__(
        self,
        directory: Path,
        wall_clock: Callable[[], float],
        counters: Counters,
        *,
        admitted: Callable[[], None],
        has_room: Callable[[], bool],
    ) -> None:
        self._directory = directory
        self._wall_clock = wall_clock
        self._counters = counters
        self._admitted = admitted
        self._has_room = has_room

    def exist(self) -> bool:
        """Return whether any was ever made: only then the message of an unknown key is read further."""
        return (self._directory / DIRECTORY).is_dir()

    def admit(self, public_key: bytes, secret: bytes) -> ExitStatus | None:
        """Add the client with ``public_key``, and use up the invitation of ``secret``.

        Return OK, or why it is refused; None for a secret that no invitation has.
        """
        path = self._directory / DIRECTORY / (digest(secret) + SUFFIX)
        try:
            entry = parse_invitation_entry(
                read_regular(path, MAX_INVITATION_FILE).decode("utf-8"), source=path.name
            )
        except (OSError, UnicodeDecodeError, ConfigError):
            return None
        if entry.used:
            return ExitStatus.INVITATION_USED
        if self._wall_clock() > entry.expires:
            return ExitStatus.INVITATION_EXPIRED
        if not self._has_room():  # a client more would take the place of one that is listed
            log.warning("an invited client cannot be added: [limits] max_clients is reached")
            self._counters.drop("invitation-list-full")
            return ExitStatus.OVERLOADED
        try:
            return self._add(path, entry, public_key)
        except OSError as error:
            log.warning("an invited client cannot be added: %s", error)
            self._counters.drop("invitation-not-written")
            return ExitStatus.OVERLOADED

    def _add(self, path: Path, entry: InvitationEntry, public_key: bytes) -> ExitStatus:
        client = {
            "name": entry.name,
            "public_key": encode_key(public_key),
            "added": datetime.fromtimestamp(self._wall_clock(), UTC).date().isoformat(),
        }
        # Used first: a link must not admit two clients, whatever happens between the two files.
        replace_file(path, writing.render({"name": entry.name, "expires": entry.expires, "used": True}))
        try:
            create_file(self._directory / CLIENTS / f"{entry.name}.toml", writing.render(client))
        except FileExistsError:
            return ExitStatus.INVITATION_USED
        self._counters.count("clients-invited")
        log.info("an invited client has joined", extra={"private": {"client": entry.name}})
        self._admitted()
        return ExitStatus.OK
