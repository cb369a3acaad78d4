"""`htvpn join`: make a profile from an invitation. The private key never leaves this host."""

from __future__ import annotations

import asyncio
import getpass
import secrets
import sys
from argparse import Namespace
from typing import Any, Final

from halftunnel_vpn.cli.profile import kept_profiles
from halftunnel_vpn.config import writing
from halftunnel_vpn.config.client import ClientProfile, parse_client
from halftunnel_vpn.protocol.invitation import MAX_LINK, Invitation, InvitedPath, decode_link
from halftunnel_vpn.protocol.keys import KeyPair, encode_key

HEADER: Final = """\
# A profile of Half-Tunnel, made by 'htvpn join'. It contains a private key, which no other host has.
# 'htvpn config example client' prints every key with its explanation.

"""


def run(options: Namespace) -> int:
    """Join the exit of a link, and keep the profile under the name that the exit has given."""
    invitation = decode_link(_read_link(options.link))
    text = profile_of(invitation, KeyPair(secrets.token_bytes(32)))
    profile = parse_client(text, source="the invitation")
    name = options.name or invitation.name
    profiles = kept_profiles(options)
    if options.add_to is not None:
        profiles.add_exit(options.add_to, text, exit=name, keep=False)  # before the invitation is used up
        _register(profile, invitation)
        profiles.add_exit(options.add_to, text, exit=name)
        print(f"This host is the client {invitation.name} of the exit now: {name} in {options.add_to}.")
        return 0
    profiles.put(name, text, replace=False)
    try:
        _register(profile, invitation)
    except BaseException:
        profiles.remove(name)  # the exit does not know its key
        raise
    print(f"This host is the client {invitation.name} of the exit now. Connect with `htvpn up {name}`.")
    return 0


def _register(profile: ClientProfile, invitation: Invitation) -> None:
    from halftunnel_vpn.client.registration import register

    asyncio.run(register(profile, invitation.secret))


def _read_link(given: str | None) -> str:
    if given not in (None, "-"):
        return str(given)
    if given is None and sys.stdin.isatty():
        return getpass.getpass("Invitation (it is not shown): ")
    return sys.stdin.readline(MAX_LINK + 2)


def profile_of(invitation: Invitation, key: KeyPair) -> str:
    """Return the profile with ``key``. Raises ConfigError for a link that holds no possible profile."""

    def direction(path: InvitedPath) -> dict[str, Any]:
        table: dict[str, Any] = {"urls": [path.url]}
        if path.pin:
            table["tls"] = {"certificate_sha256": [path.pin.hex()]}
        return table

    document: dict[str, Any] = {
        "name": invitation.name,
        "exit": {"public_key": encode_key(invitation.exit_public)},
        "client": {"private_key": encode_key(key.private)},
        "upstream": direction(invitation.upstream),
        "downstream": direction(invitation.downstream),
    }
    return HEADER + writing.render(document)
