"""Making an invitation: its file in the exit's directory, and the link for the client."""

from __future__ import annotations

import re
import secrets
from typing import Any, Final

from halftunnel_vpn.config import writing
from halftunnel_vpn.config.clients import CLIENTS, checked_name
from halftunnel_vpn.config.invitation_entry import parse_invitation_entry
from halftunnel_vpn.config.server import ListenerConfig, PublicRoadConfig, ServerConfig
from halftunnel_vpn.control.owned_directory import OwnedDirectory
from halftunnel_vpn.errors import ConfigError, UsageError
from halftunnel_vpn.protocol.certificates import fingerprint_of
from halftunnel_vpn.protocol.invitation import (
    SECRET_LENGTH,
    Invitation,
    InvitedPath,
    digest,
    encode_link,
)
from halftunnel_vpn.protocol.keys import parse_key_pair
from halftunnel_vpn.server.invitations import DIRECTORY, SUFFIX

LONGEST: Final = 30 * 86400
"""Seconds for which an invitation may be good."""

REMEMBERED: Final = 30 * 86400
"""Seconds after its end for which the exit can say that an invitation is over."""

MAX_INVITATIONS: Final = 1000
"""Invitations of an exit, those that are over included."""

_DURATION: Final = re.compile(r"(\d{1,7})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str) -> int:
    """Return the seconds for which an invitation is good: of ``30m``, ``1h`` or ``2d``. Raises UsageError."""
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match is not None else 0
    if not 1 <= seconds <= LONGEST:
        raise UsageError(f"expires {text}: must be a time like 1h or 2d, up to 30d")
    return seconds


def make_invitation(
    directory: OwnedDirectory, config: ServerConfig, name: str, *, seconds: int, now: int
) -> str:
    """Return the link of a new invitation, which admits one client ``name``, once.

    Raises UsageError for a wrong name, ConfigError or HostError when it cannot be made.
    """
    name = checked_name(name)
    key_file = config.server.private_key
    missing = f"there is no {directory.path / key_file}, which [server] private_key names; put it back"
    exit_key = parse_key_pair(directory.read_text(key_file, missing=missing), key_file)
    with directory.subdirectory(CLIENTS, make=True) as clients:
        if clients.exists(name + SUFFIX):
            raise ConfigError(f"this exit has a client {name} already; choose another name")
    invitation = Invitation(
        name,
        exit_key.public,
        secrets.token_bytes(SECRET_LENGTH),
        _path(directory, config.public.upstream, config.listen.upstream),
        _path(directory, config.public.downstream, config.listen.downstream),
    )
    link = encode_link(invitation)
    with directory.subdirectory(DIRECTORY, make=True) as kept:
        _prune(kept, now)
        entry: dict[str, Any] = {"name": name, "expires": now + seconds, "used": False}
        kept.write_new(digest(invitation.secret) + SUFFIX, writing.render(entry))
    return link


def _path(directory: OwnedDirectory, public: PublicRoadConfig, listener: ListenerConfig) -> InvitedPath:
    """Return what the link says of one direction. Pin the certificate where profiles pin its authority."""
    if public.headers:
        raise ConfigError("[public] headers do not fit an invitation; use `htvpn server add-client`")
    pin = b""
    if public.ca:
        path = directory.path / listener.certificate
        missing = f"there is no {path}, which [listen] names as certificate; put it back"
        pin = fingerprint_of(directory.read_text(listener.certificate, missing=missing).encode())
    return InvitedPath(public.urls[0], pin)


def _prune(kept: OwnedDirectory, now: int) -> None:
    """Remove invitations that were over long ago. Raises ConfigError when there are too many."""
    names = kept.names(SUFFIX)
    for name in names:
        try:
            entry = parse_invitation_entry(kept.read_text(name + SUFFIX), source=name)
            is_over = now > entry.expires + REMEMBERED
        except ConfigError:
            is_over = True
        if is_over:
            kept.remove(name + SUFFIX)
    if len(names) >= MAX_INVITATIONS:
        raise ConfigError(f"this exit has {len(names)} invitations; remove some in {kept.path}")
