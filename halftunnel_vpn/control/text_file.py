"""Text files that people write: configurations, profiles, keys, certificates. Their size is bounded."""

from __future__ import annotations

from pathlib import Path

from halftunnel_vpn.config.schema import MAX_TEXT
from halftunnel_vpn.errors import ConfigError, HostError
from halftunnel_vpn.storage.bounded_file import Opener, read_regular

BYTE_ORDER_MARK = "\ufeff"
"""The byte order mark, with which some editors begin a file."""


def read_text(
    path: Path,
    *,
    missing: str | None = None,
    reader: str = "this user; run this as its owner or as root",
    opener: Opener | None = None,
) -> str:
    """Return the text of a file. Raises HostError if it cannot be read, ConfigError as :func:`decode` does.

    ``missing`` is the sentence of the ConfigError when there is no file, None for the usual HostError.
    ``reader`` completes the sentence "it may not be read by". With an ``opener`` only a regular file is read,
    so that a pipe cannot block the caller.
    """
    try:
        if opener is not None:
            raw = read_regular(path, MAX_TEXT, opener=opener)
        else:
            with open(path, "rb") as file:
                raw = file.read(MAX_TEXT + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        if missing is not None:
            raise ConfigError(missing) from None
        raise HostError(f"{path} cannot be read: {error.strerror}") from error
    except PermissionError:
        raise HostError(f"{path} may not be read by {reader}") from None
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror}") from error
    return decode(raw, str(path))


def decode(raw: bytes, source: str) -> str:
    """Return ``raw`` as text. ``source`` names it. Raises ConfigError if too long or not UTF-8."""
    if len(raw) > MAX_TEXT:
        raise ConfigError(f"{source}: longer than {MAX_TEXT} bytes, so it is not read")
    try:
        return raw.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError:
        raise ConfigError(f"{source} is not UTF-8; write it again") from None
