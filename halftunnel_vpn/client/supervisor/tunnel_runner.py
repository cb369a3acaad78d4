"""Runs one tunnel at a time, and posts what happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from halftunnel_vpn.client.supervisor.events import Event, PhaseChanged, TunnelEnded
from halftunnel_vpn.client.supervisor.tunnel_port import TunnelPort
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.errors import HalfTunnelError, first_leaf

MakeTunnel = Callable[[ClientProfile, Callable[[], None]], TunnelPort]
"""Makes a tunnel from a profile; it calls the function whenever its phase may have changed."""


class TunnelRunner:
    """:meth:`start` a tunnel when none is there; :meth:`run` is the task in which all of them run."""

    def __init__(self, make: MakeTunnel, post: Callable[[Event], None]) -> None:
        self.tunnel: TunnelPort | None = None
        """The one that runs, is about to, or has ended and was not reaped."""
        self._make = make
        self._post = post
        self._begun = asyncio.Event()
        self._is_stopped = False
        self._is_told = False

    def start(self, profile: ClientProfile) -> None:
        """Begin; :class:`TunnelEnded` comes in the end, whatever happens."""
        assert self.tunnel is None
        self.tunnel = self._make(profile, self._changed)
        self._is_stopped = self._is_told = False
        self._begun.set()

    def stop(self) -> None:
        """Have the tunnel put everything back and end."""
        self._is_stopped = True
        if self.tunnel is not None:
            self.tunnel.stop()

    def phase(self) -> TunnelState | None:
        """Return the phase of the tunnel; None while there is none. Changes are posted again from now on."""
        self._is_told = False
        return None if self.tunnel is None else self.tunnel.phase

    async def run(self) -> None:
        """Run what is started until cancelled. Faults of ours are raised, and end the process."""
        while True:
            await self._begun.wait()
            self._begun.clear()
            self._post(TunnelEnded(await self._run_one()))

    def reap(self) -> None:
        """Forget the tunnel that has ended; to be called where :class:`TunnelEnded` is handled."""
        self.tunnel = None

    async def _run_one(self) -> HalfTunnelError | None:
        if self.tunnel is None or self._is_stopped:
            return None
        try:
            await self.tunnel.run()
        except HalfTunnelError as error:
            return error
        except BaseExceptionGroup as group:
            leaf = first_leaf(group)
            if isinstance(leaf, HalfTunnelError):
                return leaf
            raise leaf from None
        return None

    def _changed(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._post(PhaseChanged())
