"""Who may use the web page: tokens that log in once, and the sessions of browsers.

A token, and the cookie of a session, are ``ID.SECRET``. The id finds the entry, so that only the secret is
compared, in constant time, and a guess cannot use up the tries of a token that it does not know. Only digests
of secrets are kept. ``now`` is a monotonic time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Final, NamedTuple

MAX_TOKENS: Final = 8
"""Tokens that are good at a time; the oldest gives way."""

TOKEN_LIFE: Final = 300.0
"""Seconds for which a token is good."""

MAX_TRIES: Final = 3
"""Wrong secrets for one token, after which it is void."""

MAX_WRONG: Final = 10
"""Wrong tokens in a WRONG_PERIOD; further ones get another answer until it ends. Right ones still log in."""

WRONG_PERIOD: Final = 60.0
"""Seconds."""

MAX_SESSIONS: Final = 16
"""Browsers that are logged in; the one that came first is logged out."""

SESSION_LIFE: Final = 12 * 3600.0
"""Seconds after which a browser must log in again."""

SESSION_IDLE: Final = 3600.0
"""Seconds without a request after which a browser must log in again; an open page keeps asking."""

MAX_CREDENTIAL: Final = 128
"""Characters of a token, of a cookie and of the code of a session; a longer one is wrong."""

_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_FORM: Final = re.compile(r"([0-9a-f]{16})\.([0-9A-Za-z_-]{43})")


class WrongToken(Exception):
    """``reason`` is ``wrong-token`` or ``too-many-tries``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Granted(NamedTuple):
    """What a browser gets when it logs in. Every request needs both."""

    cookie: str
    code: str
    """It goes into a header, which no page of another origin can set or know (against CSRF)."""


class _Token:
    __slots__ = ("digest", "expires", "tries")

    def __init__(self, digest: bytes, expires: float) -> None:
        self.digest = digest
        self.expires = expires
        self.tries = 0


class WebSession:
    """One browser that is logged in."""

    __slots__ = ("code_digest", "digest", "ends", "used_at")

    def __init__(self, granted_digest: bytes, code_digest: bytes, now: float) -> None:
        self.digest = granted_digest
        self.code_digest = code_digest
        self.ends = now + SESSION_LIFE
        self.used_at = now

    def lasts(self, now: float) -> bool:
        """Return whether it is still good."""
        return now < self.ends and now - self.used_at < SESSION_IDLE


class Login:
    """Tokens and sessions. ``random_bytes`` returns as many as it is asked for."""

    def __init__(self, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._random = random_bytes
        self._tokens: dict[str, _Token] = {}
        self._sessions: dict[str, WebSession] = {}
        self._wrong = 0
        self._period_began = float("-inf")

    def issue(self, now: float) -> str:
        """Return a new token, which logs in one browser, once."""
        self._forget(now)
        while len(self._tokens) >= MAX_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        token, digest = self._make()
        self._tokens[_id_of(token)] = _Token(digest, now + TOKEN_LIFE)
        return token

    def log_in(self, text: str, now: float) -> Granted:
        """Use up the token ``text`` and begin a session. Raises WrongToken."""
        self._forget(now)
        match = _FORM.fullmatch(text) if len(text) <= MAX_CREDENTIAL else None
        token = None if match is None else self._tokens.get(match[1])
        if match is None or token is None or not _same(token.digest, match[2]):
            if match is not None and token is not None:
                token.tries += 1
                if token.tries >= MAX_TRIES:
                    del self._tokens[match[1]]
            raise WrongToken(self._count_wrong(now))
        del self._tokens[match[1]]
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        cookie, digest = self._make()
        code, code_digest = self._make()
        self._sessions[_id_of(cookie)] = WebSession(digest, code_digest, now)
        return Granted(cookie, code)

    def session_of(self, cookie: str, code: str, now: float) -> WebSession | None:
        """Return the session of a browser that shows both, and note that it is used; None without one."""
        self._forget(now)
        shown = _FORM.fullmatch(cookie) if len(cookie) <= MAX_CREDENTIAL else None
        told = _FORM.fullmatch(code) if len(code) <= MAX_CREDENTIAL else None
        session = None if shown is None else self._sessions.get(shown[1])
        if shown is None or told is None or session is None:
            return None
        # Both are compared, whatever the first comparison finds.
        is_right = _same(session.digest, shown[2]) & _same(session.code_digest, told[2])
        if not is_right:
            return None
        session.used_at = now
        return session

    def log_out(self, session: WebSession) -> None:
        """End a session."""
        self._sessions = {name: one for name, one in self._sessions.items() if one is not session}

    def is_open(self, session: WebSession, now: float) -> bool:
        """Return whether ``session`` goes on."""
        return session.lasts(now) and any(one is session for one in self._sessions.values())

    def _count_wrong(self, now: float) -> str:
        """Count one wrong token and return the reason of its refusal."""
        if now - self._period_began >= WRONG_PERIOD:
            self._period_began, self._wrong = now, 0
        self._wrong += 1
        return "wrong-token" if self._wrong <= MAX_WRONG else "too-many-tries"

    def _forget(self, now: float) -> None:
        self._tokens = {name: token for name, token in self._tokens.items() if now < token.expires}
        self._sessions = {name: one for name, one in self._sessions.items() if one.lasts(now)}

    def _make(self) -> tuple[str, bytes]:
        """Return a new ``ID.SECRET``, and the digest of the secret."""
        secret = _base64url(self._random(_SECRET_BYTES))
        return f"{self._random(_ID_BYTES).hex()}.{secret}", _digest(secret)


def _id_of(credential: str) -> str:
    return credential.partition(".")[0]


def _same(digest: bytes, secret: str) -> bool:
    return hmac.compare_digest(digest, _digest(secret))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
