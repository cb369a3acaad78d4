"""The base class of the tunnel's states: policy, transitions, and two methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from halftunnel_vpn.client.supervisor.enforcement import Enforcement
from halftunnel_vpn.client.supervisor.events import Event, Target, TunnelEvent
from halftunnel_vpn.client.supervisor.intent import Intent
from halftunnel_vpn.client.supervisor.portals import PortalOpening
from halftunnel_vpn.client.supervisor.retries import Retries
from halftunnel_vpn.client.supervisor.state_policies import StatePolicies
from halftunnel_vpn.client.supervisor.tunnel_runner import TunnelRunner
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.errors import IllegalTransition
from halftunnel_vpn.host.kernel.traffic_policy import TrafficPolicy

Transitions = Mapping[TunnelEvent, TunnelState]
"""The next state for each event."""


@dataclass(frozen=True, slots=True)
class StateContext:
    """What the states act on."""

    enforcement: Enforcement
    runner: TunnelRunner
    retries: Retries
    opening: PortalOpening
    intent: Intent
    post: Callable[[Event], None]
    """Adds an event that is handled after the present one."""


@dataclass(frozen=True, slots=True)
class Step:
    """A transition. ``sentence`` describes a failure."""

    event: TunnelEvent
    state: State
    sentence: str | None = None


class State:
    """A state. ``allows`` selects the policy for traffic outside the tunnel; None permits everything."""

    name: ClassVar[TunnelState]
    allows: ClassVar[staticmethod[[StatePolicies], TrafficPolicy | None]]
    leads_to: ClassVar[Transitions]
    target: Target | None = None

    async def enter(self, context: StateContext) -> str | None:
        """Apply the policy and begin the work of this state; return a sentence if that fails."""
        return await context.enforcement.attempt(self.allows)

    async def handle_event(self, event: Event, context: StateContext) -> Step | None:
        """Act on an event; return the step to the next state. Raises HostError for a refused command."""
        raise NotImplementedError

    def check(self, step: Step) -> None:
        """Raise IllegalTransition unless the table lists ``step``."""
        if self.leads_to.get(step.event) is not step.state.name:
            raise IllegalTransition(f"{self.name} does not expect {step.event.value} to {step.state.name}")
