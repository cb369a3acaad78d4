"""What the protocol's tests have in common: a client and an exit that know each other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from halftunnel_vpn.protocol.keys import KeyPair, SessionKeys


@pytest.fixture
def seeded() -> Callable[[str, int], bytes]:
    """Bytes that are the same in every run: ``seeded("what for", length)``."""

    def make(purpose: str, length: int) -> bytes:
        return hashlib.shake_256(purpose.encode()).digest(length)

    return make


@pytest.fixture
def client(seeded: Callable[[str, int], bytes]) -> KeyPair:
    return KeyPair(seeded("client", 32))


@pytest.fixture
def exit_keys(seeded: Callable[[str, int], bytes]) -> KeyPair:
    return KeyPair(seeded("exit", 32))


@pytest.fixture
def session_keys(seeded: Callable[[str, int], bytes]) -> SessionKeys:
    return SessionKeys(seeded("session", 32))
