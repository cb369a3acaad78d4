"""Invitations: a link from which a client makes its own profile (docs/PROTOCOL.md, "Invitations").

The link holds a secret, and what a profile holds except the client's private key. Message 1 of a client with
an unknown key shows the secret, and the exit adds that key to its list.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Final, NamedTuple

from halftunnel_vpn.errors import ConfigError

SCHEME: Final = "htvpn://"

MAX_LINK: Final = 300
"""Bytes of a link, so that its QR code fits a terminal and a camera."""

SECRET_LENGTH: Final = 16
KEY_LENGTH: Final = 32
PIN_LENGTH: Final = 32
CHECK_LENGTH: Final = 4

VERSION: Final = 1

_SECRET_PATH: Final = re.compile(r"/[A-Za-z0-9_-]{24}")
_RAW_PATH: Final = 18
"""Bytes of a path as `htvpn server init` makes it."""

_IS_TLS, _HAS_RAW_PATH, _HAS_PIN, _HAS_SAME_PIN = 1, 2, 4, 8


class InvitedPath(NamedTuple):
    """One direction: its URL, and the SHA-256 of the certificate that the exit shows there; empty: none."""

    url: str
    pin: bytes


class Invitation(NamedTuple):
    """What a link holds."""

    name: str
    exit_public: bytes
    secret: bytes
    upstream: InvitedPath
    downstream: InvitedPath


def digest(secret: bytes) -> str:
    """Return the name under which the exit remembers ``secret``, which it does not keep."""
    return hashlib.sha256(b"htvpn invitation" + secret).hexdigest()[:32]


def encode_link(invitation: Invitation) -> str:
    """Return the link. Raises ConfigError when it would be longer than MAX_LINK."""
    upstream, downstream = invitation.upstream, invitation.downstream
    body = bytes((VERSION,)) + invitation.exit_public + invitation.secret
    body += (
        _encode_text(invitation.name) + _encode_path(upstream, b"") + _encode_path(downstream, upstream.pin)
    )
    body += _check(body)
    link = SCHEME + base64.urlsafe_b64encode(body).decode().rstrip("=")
    if len(link) > MAX_LINK:
        raise ConfigError(
            f"the link would have {len(link)} bytes, and {MAX_LINK} are the most: the name or the URLs are "
            "too long for an invitation; use `htvpn server add-client`"
        )
    return link


def decode_link(link: str) -> Invitation:
    """Return what ``link`` holds. Raises ConfigError with one sentence for what is no whole link."""
    text = link.strip()
    if len(text) > MAX_LINK or not text.startswith(SCHEME):
        raise ConfigError(f"this is no invitation: it begins with {SCHEME} and has at most {MAX_LINK} bytes")
    payload = text.removeprefix(SCHEME).rstrip("/")
    try:
        body = base64.b64decode(payload + "=" * (-len(payload) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _altered() from None
    if len(body) <= CHECK_LENGTH or _check(body[:-CHECK_LENGTH]) != body[-CHECK_LENGTH:]:
        raise _altered()
    reader = _Reader(body[:-CHECK_LENGTH])
    if reader.take(1)[0] != VERSION:
        raise ConfigError("this invitation is of a later version: install a later version of Half-Tunnel")
    exit_public, secret = reader.take(KEY_LENGTH), reader.take(SECRET_LENGTH)
    name, upstream = reader.text(), reader.path(b"")
    downstream = reader.path(upstream.pin)
    if reader.left:
        raise _altered()
    return Invitation(name, exit_public, secret, upstream, downstream)


def _encode_text(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 255:
        raise ConfigError("a name or host of more than 255 bytes does not fit an invitation")
    return bytes((len(raw),)) + raw


def _encode_path(path: InvitedPath, first: bytes) -> bytes:
    """``first`` is the pin of the other path: one certificate of both is written once."""
    scheme, _, rest = path.url.partition("://")
    host, slash, tail = rest.partition("/")
    pin, flags = path.pin, _IS_TLS if scheme == "wss" else 0
    if pin:
        flags |= _HAS_SAME_PIN if pin == first else _HAS_PIN
        pin = b"" if pin == first else pin
    tail = slash + tail
    if _SECRET_PATH.fullmatch(tail):
        return bytes((flags | _HAS_RAW_PATH,)) + _encode_text(host) + _raw_path(tail) + pin
    return bytes((flags,)) + _encode_text(host) + _encode_text(tail) + pin


def _raw_path(path: str) -> bytes:
    return base64.urlsafe_b64decode(path[1:])


def _check(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:CHECK_LENGTH]


def _altered() -> ConfigError:
    return ConfigError("this invitation is not whole: a character is missing or wrong; copy it again")


class _Reader:
    """Reads the fields of a body. Raises ConfigError where it ends too early."""

    def __init__(self, body: bytes) -> None:
        self.left = body

    def take(self, count: int) -> bytes:
        if len(self.left) < count:
            raise _altered()
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def text(self) -> str:
        try:
            return self.take(self.take(1)[0]).decode()
        except UnicodeDecodeError:
            raise _altered() from None

    def path(self, first: bytes) -> InvitedPath:
        flags = self.take(1)[0]
        host = self.text()
        if flags & _HAS_RAW_PATH:
            tail = "/" + base64.urlsafe_b64encode(self.take(_RAW_PATH)).decode()
        else:
            tail = self.text()
        pin = self.take(PIN_LENGTH) if flags & _HAS_PIN else first if flags & _HAS_SAME_PIN else b""
        return InvitedPath(f"{'wss' if flags & _IS_TLS else 'ws'}://{host}{tail}", pin)
