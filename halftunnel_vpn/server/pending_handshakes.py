"""Half handshakes that wait for the other half.

A waiting upstream half reserves its session id and counts towards a limit of its client. The gate repeats
every check of the first half when the second one arrives, which may be seconds later.
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
    """Message 1 of a client whose key was listed when it arrived. ``status`` is that of the answer."""

    newcomer: Newcomer
    offer: Offer
    hello: ClientHello
    status: ExitStatus

    @property
    def owner(self) -> tuple[bytes, bool]:
        """Its public key, and whether a session will be created."""
        return self.offer.client_public, self.status is ExitStatus.OK


class PendingHandshakes:
    """All waiting halves, at most ``per_client`` upstream halves of one key.

    The gate bounds their total number (``MAX_WAITING``) and closes each at its deadline.
    """

    def __init__(self, per_client: int) -> None:
        self.per_client = per_client
        # Both tables by join token.
        self._upstream: dict[bytes, UpstreamHalf] = {}
        self._downstream: dict[bytes, Newcomer] = {}
        # Tokens by session id. No two halves may request the same session.
        self._session_ids: dict[bytes, bytes] = {}
        # Halves of each public key, the oldest first. Those that will be refused have a limit of their own,
        # so that a replayed message cannot displace one of the client itself.
        self._by_client: dict[tuple[bytes, bool], dict[bytes, UpstreamHalf]] = {}

    def __len__(self) -> int:
        return len(self._upstream) + len(self._downstream)

    def add_upstream(self, half: UpstreamHalf) -> Newcomer | None:
        """Add ``half``. Return the newcomer that must be closed because its client has too many.

        Raises HandshakeError: handshake-replayed (its token or its session id is waiting already).
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
        """Add the leg that has sent ``token``. Raises HandshakeError: join-replayed."""
        if token in self._downstream:
            raise HandshakeError("join-replayed")
        newcomer.token = token
        self._downstream[token] = newcomer

    def pair(self, token: bytes) -> tuple[UpstreamHalf, Newcomer] | None:
        """Return both halves of ``token``; None while one is missing."""
        upstream, downstream = self._upstream.get(token), self._downstream.get(token)
        return (upstream, downstream) if upstream is not None and downstream is not None else None

    def discard(self, newcomer: Newcomer) -> None:
        """Remove the half of ``newcomer`` and its reservations."""
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
        """Return every upstream half whose key ``client_of`` does not know."""
        return [
            half.newcomer
            for (public_key, _), halves in self._by_client.items()
            if client_of(public_key) is None
            for half in halves.values()
        ]
