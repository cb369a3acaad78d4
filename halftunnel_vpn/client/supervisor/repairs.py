"""`htvpn repair`: undo what an earlier process left on this host."""

from __future__ import annotations

from halftunnel_vpn.client.supervisor.base_state import StateContext
from halftunnel_vpn.client.supervisor.machine import Machine
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.record.wanted import Wanted


class Repairs:
    """Repairs the host of a supervisor. Calls raise HostError, and return what was restored, as sentences."""

    def __init__(self, machine: Machine, context: StateContext) -> None:
        self._machine = machine
        self._context = context
        self._is_due = False
        """Whether :meth:`run` still has to check the host."""

    async def begin(self) -> None:
        """Enforce the policy of the first state, and undo what killed tunnels left.

        If that can only be to look for what nobody has recorded, :meth:`run` does it beside everything else.
        """
        self._is_due = self._context.enforcement.finds_nothing(self._machine.state.allows)
        if not self._is_due:
            await self._clear()

    async def run(self) -> None:
        """Do what :meth:`begin` has left. Raises HostError."""
        if self._is_due:
            self._is_due = False
            await self._clear()

    async def _clear(self) -> None:
        await self._context.enforcement.enforce(self._machine.state.allows)
        await self.clean_up()

    async def repair(self, *, lift: bool) -> list[str]:
        """Undo what an earlier process left; ``lift``: also lift the kill switch."""
        context = self._context
        if lift and self._machine.state.name is not TunnelState.DISCONNECTED:
            raise HostError("a tunnel is wanted up: run `htvpn down` first, then lift what remains")
        if context.runner.tunnel is not None:
            return await context.enforcement.mend()
        if lift:
            context.intent.note(Wanted())  # otherwise the next start would enforce the profile's policy again
            found = await context.enforcement.lift(self._machine.state.allows)
        else:
            found = await context.enforcement.mend()
        return found + await self.clean_up()

    async def clean_up(self) -> list[str]:
        """Undo what killed tunnels left."""
        left = await self._context.enforcement.port.clean_up()
        return [f"what the tunnel {device} had changed" for device in left]
