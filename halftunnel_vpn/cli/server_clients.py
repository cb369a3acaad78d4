"""`htvpn server add-client` and `remove-client`: the clients that may use this exit."""

from __future__ import annotations

import contextlib
import difflib
import os
import secrets
import shlex
import stat
import sys
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from halftunnel_vpn.cli import server_directory, server_replicas
from halftunnel_vpn.config import writing
from halftunnel_vpn.config.client import parse_client
from halftunnel_vpn.config.clients import CLIENTS, changed_entry, checked_name
from halftunnel_vpn.config.server import PublicRoadConfig, ServerConfig
from halftunnel_vpn.control.owned_directory import OwnedDirectory
from halftunnel_vpn.errors import ConfigError, HostError, UsageError
from halftunnel_vpn.protocol.keys import KeyPair, encode_key, parse_key_pair
from halftunnel_vpn.storage.atomic_file import create_file

HEADER = """\
# A profile of Half-Tunnel. It contains a private key: anybody who has this file can act as this client.
# Keep it as /etc/halftunnel/profiles/{name}.toml, mode 0600, and connect with 'htvpn up {name}'.
# 'htvpn config example client' prints every key with its explanation.

"""


SHAPING = ("off", "split", "strong")
"""Modes, the one that hides most last."""


def add(options: Namespace) -> int:
    """Admit a client: store its public key here, write its profile to a new file or standard output."""
    name = checked_name(options.name)
    if options.output is None and _others_may_read(sys.stdout):
        print(
            f"htvpn: others may read the file that takes the private key of {name}; --output FILE makes one "
            "that only its owner may read",
            file=sys.stderr,
        )
    with contextlib.ExitStack() as opened:
        directory, *others = server_replicas.open_for(name, options, opened)
        config = server_directory.read_configuration(directory)
        key = KeyPair(secrets.token_bytes(32))
        profile = _profile(directory, config, name, key, options.shaping)
        lists = [opened.enter_context(one.subdirectory(CLIENTS, make=True)) for one in (directory, *others)]
        if options.if_missing and lists[0].exists(name + server_directory.CLIENT_SUFFIX):
            print(f"This exit has a client {name} already; nothing is changed.", file=sys.stderr)
            return 0
        with contextlib.ExitStack() as undo:
            # Nobody has the private key until the profile is written, so the public key is useless.
            for number, clients in enumerate(lists):
                if number and clients.exists(name + server_directory.CLIENT_SUFFIX):
                    continue  # this exit has the same list, or has a copy of it by now
                _admit(clients, config.limits.max_clients, name, key)
                undo.callback(clients.remove, name + server_directory.CLIENT_SUFFIX)
            if options.output is None:
                sys.stdout.write(profile)
                sys.stdout.flush()
            else:
                write_new(options.output, profile)
            undo.pop_all()
    if options.output is not None:
        _say_where(options.output, name)
    return 0


def rotate_key(options: Namespace) -> int:
    """Give a client another key: write its new profile, then replace its public key. The old key ends."""
    name = checked_name(options.name)
    if options.value is not None:
        raise UsageError("rotate-key takes no value")
    with server_directory.open_directory(Path(options.dir)) as directory:
        config = server_directory.read_configuration(directory)
        key = KeyPair(secrets.token_bytes(32))
        with directory.subdirectory(CLIENTS, make=True) as clients:
            file = name + server_directory.CLIENT_SUFFIX
            missing = f"this exit has no client {name}"

            def changed(text: str) -> str:
                return changed_entry(text, {"public_key": encode_key(key.public)}, source=file)

            changed(clients.read_text(file, missing=missing))  # raises before there is a profile
            profile = _profile(directory, config, name, key, "off")
            if options.output is None:
                sys.stdout.write(profile)
                sys.stdout.flush()
            else:
                write_new(options.output, profile)
            # The output may have taken long. What others have changed meanwhile stays.
            clients.change(file, changed, missing=missing)
            if options.output is not None:
                _say_where(options.output, f"--replace {name}")
    return 0


def _say_where(output: str, stored_as: str) -> None:
    """Print where the profile is, and what to do with it: store it as the arguments ``stored_as`` say."""
    file, name = shlex.quote(output), stored_as.removeprefix("--replace ")
    print(
        f"The profile of {name}, with its private key, is in {file}. Take it to the client by a way that "
        f"nobody else can read, run `sudo htvpn profile add {stored_as} {file}` there, and remove it here."
    )


def _others_may_read(stream: TextIO) -> bool:
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):  # it has no file descriptor
        return False
    return stat.S_ISREG(mode) and bool(mode & (stat.S_IRGRP | stat.S_IROTH))


def write_new(path: str, text: str) -> None:
    """Write ``text`` to a new file of mode 0600. On failure remove the file and raise HostError."""
    try:
        create_file(Path(path), text)
    except FileExistsError:
        raise HostError(f"{path} exists already and is not replaced; name another file") from None
    except OSError as error:
        raise HostError(f"{path} cannot be written: {error.strerror}") from error


def _admit(clients: OwnedDirectory, limit: int, name: str, key: KeyPair) -> None:
    admitted = clients.names(server_directory.CLIENT_SUFFIX)
    if len(admitted) >= limit:
        raise ConfigError(
            f"this exit has {len(admitted)} clients and [limits] max_clients = {limit}; "
            "raise that, or remove a client"
        )
    if name in admitted:
        raise ConfigError(f"this exit has a client {name} already; remove it first or choose another name")
    entry = {
        "name": name,
        "public_key": encode_key(key.public),
        "added": datetime.now(UTC).date().isoformat(),
    }
    clients.write_new(name + server_directory.CLIENT_SUFFIX, writing.render(entry))


def remove(options: Namespace) -> int:
    """Remove a client."""
    name = checked_name(options.name)
    with server_directory.open_directory(Path(options.dir)) as directory:
        server_directory.read_configuration(directory)
        with directory.subdirectory(CLIENTS, make=True) as clients:
            if not clients.remove(name + server_directory.CLIENT_SUFFIX):
                known = clients.names(server_directory.CLIENT_SUFFIX)
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known[:20]) or 'none'}"
                raise ConfigError(f"this exit has no client {name}; {hint}")
    print(f"{name} is removed; the exit no longer accepts it.")
    return 0


def _profile(directory: OwnedDirectory, config: ServerConfig, name: str, key: KeyPair, shaping: str) -> str:
    most = config.shaping.max
    if SHAPING.index(shaping) > SHAPING.index(most):
        raise ConfigError(f'[shaping] max is "{most}" here; raise that first, or ask for no more')
    key_path = directory.path / config.server.private_key
    missing = f"there is no {key_path}, which [server] private_key names; put it back"
    exit_key = parse_key_pair(directory.read_text(config.server.private_key, missing=missing), str(key_path))
    upstream, downstream = config.public.upstream, config.public.downstream
    document: dict[str, Any] = {
        "name": name,
        "exit": {"public_key": encode_key(exit_key.public)},
        "client": {"private_key": encode_key(key.private)},
        "upstream": {"urls": upstream.urls},
        "downstream": {"urls": downstream.urls},
    }
    if shaping != "off":
        document["shaping"] = {"mode": shaping}
    authorities = _authority(directory, upstream), _authority(directory, downstream)
    if authorities[0] == authorities[1]:
        if authorities[0]:
            document["tls"] = {"ca": authorities[0]}
    else:
        for direction, authority in zip(("upstream", "downstream"), authorities, strict=True):
            if authority:
                document[direction]["tls"] = {"ca": authority}
    for direction, public in (("upstream", upstream), ("downstream", downstream)):
        if public.headers:
            document[direction].setdefault("tls", {})["headers"] = public.headers
    profile = HEADER.format(name=name) + writing.render(document)
    parse_client(profile, source=f"the profile of {name}")
    return profile


def _authority(directory: OwnedDirectory, road: PublicRoadConfig) -> str:
    if not road.ca:
        return ""
    path = directory.path / road.ca
    return directory.read_text(
        road.ca, missing=f"there is no {path}, which [public] names as ca; put it back"
    )
