"""What is known about the domains of both directions. It outlives a session."""

from __future__ import annotations

import random
from collections.abc import Callable
from urllib.parse import urlsplit

from halftunnel_vpn.client.legs.circuit_breaker import Breaker
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.exits import RoadConfig
from halftunnel_vpn.protocol.keys import Direction


class Roads:
    """The configuration of each direction, and a circuit breaker for each of its URLs.

    ``changed`` is called, if it is set, whenever a circuit has opened, closed or been reset.
    """

    def __init__(self, profile: ClientProfile) -> None:
        self._config = {Direction.UPSTREAM: profile.upstream, Direction.DOWNSTREAM: profile.downstream}
        self.changed: Callable[[], None] = lambda: None
        self.breakers = {
            direction: {url: Breaker(random.random, self._wake) for url in config.urls}
            for direction, config in self._config.items()
        }
        self.round_trips: dict[Direction, dict[str, float]] = {direction: {} for direction in Direction}
        """The round trip of the last leg in seconds, by URL. The URLs of the profile bound it."""

    def config(self, direction: Direction) -> RoadConfig:
        """Return the configuration of ``direction``."""
        return self._config[direction]

    def in_order(self, direction: Direction, now: float) -> list[str]:
        """Return all URLs of ``direction``: usable ones first, each group in order of priority."""
        breakers = self.breakers[direction]
        return sorted(breakers, key=lambda url: not breakers[url].is_ready(now))

    def connections(self, direction: Direction) -> list[tuple[str, ...]]:
        """Return, for each connection of the profile, the URLs that it may use."""
        config = self._config[direction]
        if config.policy == "failover":
            return [config.urls] * config.connections
        return [(url,) for url in config.urls for _ in range(config.connections)]

    def weight(self, direction: Direction, url: str) -> int:
        """Return the share of the legs to ``url``."""
        config = self._config[direction]
        return config.weights[config.urls.index(url)] if config.weights else 1

    def forgive(self) -> None:
        """Allow attempts to every URL at once: the network has changed."""
        for breakers in self.breakers.values():
            for breaker in breakers.values():
                breaker.forgive()

    def _wake(self) -> None:
        self.changed()


def domain_of(url: str) -> str:
    """Return host and port. The path of a URL is a secret."""
    return urlsplit(url).netloc
