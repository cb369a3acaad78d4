"""Halves of handshakes that wait for the other half.

A waiting upstream half reserves its session id, and counts towards a bound of its client. The gate repeats
every check of the first half when the halves meet: seconds may lie in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from halftunnel_vpn.errors import HandshakeError
from halftunnel_vpn.protocol.handshake import Offer
from halftunnel_vpn.protocol.handshake_payloads import ClientHello, ExitStatus
from halftunnel_vpn.server.newcomer import Newcomer


@dataclass(frozen=True, slots=True)
class UpstreamHalf:
    """Message 1 of a client whose key was listed when it came. ``status`` is what it will be answered."""

    newcomer: Newcomer
    offer: Offer
    hello: ClientHello
    status: ExitStatus

    @property
    def owner(self) -> tuple[bytes, bool]:
        """Its public key, and whether a session is to be made."""
        return self.offer.client_public, self.status is ExitStatus.OK


class PendingHandshakes:
    """All halves that wait, at most ``per_client`` upstream halves of one key.

    The gate bounds all of them together (``MAX_WAITING``) and closes each at its deadline.
    """

    def __init__(self, per_client: int) -> None:
        self.per_client = per_client
        # Both tables by join token.
        self._upstream: dict[bytes, UpstreamHalf] = {}
        self._downstream: dict[bytes, Newcomer] = {}
        # Tokens by session id: no two halves may ask for one session.
        self._session_ids: dict[bytes, bytes] = {}
        # Halves of each public key, the oldest first. Those that will be refused have a bound of their
        # own: a replayed message must not displace the client's own.
        self._by_client: dict[tuple[bytes, bool], dict[bytes, UpstreamHalf]] = {}

    def __len__(self) -> int:
        return len(self._upstream) + len(self._downstream)

    def add_upstream(self, half: UpstreamHalf) -> Newcomer | None:
        """Let ``half`` wait. Return the newcomer that must give way because its client has too many.

        Raises HandshakeError: handshake-replayed (its token or its session id waits already).
        """
        token, session_id = half.hello.join_token, half.hello.session_id
        if token in self._upstream or session_id in self._session_ids:
            raise HandshakeError("handshake-replayed")
        half.newcomer.token = token
        self._upstream[token] = half
        self._session_ids[session_id] = token
        own = self._by_client.setdefault(half.owner, {})
        own[token] = half
        return next(iter(own.values())).newcomer if len(own) > self.per_client else None

    def add_downstream(self, token: bytes, newcomer: Newcomer) -> None:
        """Let the leg that shows ``token`` wait. Raises HandshakeError: join-replayed."""
        if token in self._downstream:
            raise HandshakeError("join-replayed")
        newcomer.token = token
        self._downstream[token] = newcomer

    def pair(self, token: bytes) -> tuple[UpstreamHalf, Newcomer] | None:
        """Both halves that belong to ``token``; None while one is missing."""
        upstream, downstream = self._upstream.get(token), self._downstream.get(token)
        return (upstream, downstream) if upstream is not None and downstream is not None else None

    def discard(self, newcomer: Newcomer) -> None:
        """Forget the half of ``newcomer``, and what it has reserved."""
        token = newcomer.token
        if token is None:
            return
        half = self._upstream.get(token)
        if half is not None and half.newcomer is newcomer:
            del self._upstream[token], self._session_ids[half.hello.session_id]
            own = self._by_client[half.owner]
            del own[token]
            if not own:
                del self._by_client[half.owner]
        if self._downstream.get(token) is newcomer:
            del self._downstream[token]

    def unlisted(self, client_of: Callable[[bytes], str | None]) -> list[Newcomer]:
        """Every upstream half whose key ``client_of`` does not know."""
        return [
            half.newcomer
            for (public_key, _), halves in self._by_client.items()
            if client_of(public_key) is None
            for half in halves.values()
        ]
