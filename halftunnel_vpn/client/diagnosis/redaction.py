"""Take out of a text what a bug report must not hold: keys, secret paths, names, public addresses. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

MIN_SECRET: Final = 4
"""Characters; a shorter value, such as "de", would take ordinary text out as well."""

MAX_SECRETS: Final = 4096
"""Values that are taken out by their text."""

_KEY: Final = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{43}=?(?![A-Za-z0-9+/=_-])")
"""32 bytes in base64."""

_PEM: Final = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)
_URL: Final = re.compile(r"\b(https?|wss?|htvpn)://[^\s\"'<>,\]]+")
_ADDRESS: Final = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:])"
)
_NAME: Final = re.compile(
    r"(?<![\w.@/-])(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?\.)+[a-z]{2,24}\.?(?![\w/(-])", re.IGNORECASE
)

_OWN_ENDINGS: Final = (
    ".toml",
    ".py",
    ".conf",
    ".service",
    ".socket",
    ".json",
    ".sock",
    ".md",
    ".target",
    ".so",
)
"""Endings of files and units, which look like names."""


class Redaction:
    """Replaces each secret by the same placeholder everywhere, so that lines can still be compared.

    ``secrets`` maps a word, such as ``key`` or ``client``, to values that are taken out wherever they stand.
    """

    def __init__(self, secrets: Mapping[str, Iterable[str]] | None = None) -> None:
        self._placeholders: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        known = [(value, word) for word, values in (secrets or {}).items() for value in values]
        known = [(value, word) for value, word in known if len(value) >= MIN_SECRET][:MAX_SECRETS]
        # A value that holds another one goes first.
        self._known = sorted(known, key=lambda pair: len(pair[0]), reverse=True)

    def text(self, text: str) -> str:
        """Return ``text`` without secrets."""
        for value, word in self._known:
            if value in text:
                text = text.replace(value, self._placeholder(word, value))
        text = _PEM.sub(lambda found: self._placeholder("pem", found[0]), text)
        text = _URL.sub(self._url, text)
        text = _KEY.sub(lambda found: self._placeholder("key", found[0]), text)
        text = _ADDRESS.sub(self._address, text)
        return _NAME.sub(self._name, text)

    def _placeholder(self, word: str, value: str) -> str:
        if value not in self._placeholders:
            self._counts[word] = number = self._counts.get(word, 0) + 1
            self._placeholders[value] = f"<{word}-{number}>"
        return self._placeholders[value]

    def _url(self, found: re.Match[str]) -> str:
        try:
            parts = urlsplit(found[0])
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            return self._placeholder("url", found[0])
        host = self._placeholder("host", (parts.hostname or "").lower())
        path = "/" + self._placeholder("path", parts.path) if parts.path not in ("", "/") else ""
        return f"{parts.scheme}://{host}{port}{path}"

    def _address(self, found: re.Match[str]) -> str:
        try:
            address = ipaddress.ip_address(found[0])
        except ValueError:
            return found[0]
        return self._placeholder("address", found[0]) if address.is_global else found[0]

    def _name(self, found: re.Match[str]) -> str:
        name = found[0]
        if name.lower().endswith(_OWN_ENDINGS) or name.startswith("halftunnel_vpn."):
            return name
        return self._placeholder("host", name.rstrip(".").lower())
