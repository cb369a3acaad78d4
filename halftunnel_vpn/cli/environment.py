"""The configuration of a process in its environment variables (docs/DEPLOYMENT.md).

Only the commands that run a client or an exit in the foreground read it, and those that act for such an exit.
The daemon and `htvpn up` do not: a profile must mean the same for every user.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from halftunnel_vpn.config.environment_variables import FILE_SUFFIX, PREFIX
from halftunnel_vpn.control.text_file import read_text
from halftunnel_vpn.errors import ConfigError

PROFILE = "HTVPN_PROFILE"
"""A whole profile, as its file has it."""

SERVER_CONFIG = "HTVPN_SERVER_CONFIG"
"""A whole server.toml."""

INIT = "HTVPN_INIT_"
"""What `server run` calls `server init` with when there is no exit yet, an option each."""

INIT_LISTS = ("upstream", "downstream", "allow_egress", "dns")
INIT_VALUES = ("listen_upstream", "listen_downstream", "certificate", "certificate_key")
INIT_FLAGS = ("behind_proxy",)


class Settings(NamedTuple):
    """What was found."""

    text: str | None
    """The whole configuration, None when no variable holds it."""
    source: str
    """The variable or the file that it is from, for messages."""
    variables: Mapping[str, str]
    """Values of single keys, by variable."""


def read(whole: str, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings; ``whole`` is PROFILE or SERVER_CONFIG.

    Raises ConfigError for a value that is given twice, and for a file that is not there; HostError for one
    that cannot be read.
    """
    found: dict[str, str] = {}
    text, source = None, whole
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name.startswith(INIT) or not value:
            continue
        key = name.removesuffix(FILE_SUFFIX)
        if name != key:
            if environ.get(key):
                raise ConfigError(f"{key} and {name} are both set; set one of them")
            path = Path(value)
            value = read_text(path, missing=f"there is no file {value}, which {name} names")
        if key == whole:
            text, source = value, environ[name] if name != key else name
        elif key not in (PROFILE, SERVER_CONFIG):
            found[key] = value.strip("\n") if name != key else value
    return Settings(text, source, found)


def init_options(environ: Mapping[str, str] = os.environ) -> dict[str, Any] | None:
    """Return the options of `server init` that the environment asks for, None when it asks for none.

    Raises ConfigError.
    """
    options: dict[str, Any] = {}
    for name, value in sorted(environ.items()):
        if not name.startswith(INIT) or not value:
            continue
        option = name.removeprefix(INIT).lower()
        if option in INIT_LISTS:
            options[option] = value.replace(",", " ").split()
        elif option in INIT_VALUES:
            options[option] = value
        elif option not in INIT_FLAGS:
            raise ConfigError(f"{name}: `htvpn server init` has no such option; see its --help")
        elif value in ("true", "false"):
            options[option] = value == "true"
        else:
            raise ConfigError(f"{name} = {value}: must be true or false")
    if not options:
        return None
    for direction in ("upstream", "downstream"):
        if not options.get(direction):
            raise ConfigError(f"{INIT}{direction.upper()} is missing: where do clients reach the exit?")
    absent: dict[str, Any] = {**{option: [] for option in INIT_LISTS}, **dict.fromkeys(INIT_VALUES)}
    return absent | dict.fromkeys(INIT_FLAGS, False) | options
