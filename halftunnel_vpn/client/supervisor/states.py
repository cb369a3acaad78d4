"""The states of the tunnel, one class each: what it does when it is entered, and where each event leads.

``leads_to`` is the table of transitions; docs/ARCHITECTURE.md has its diagram. ``enter`` applies the state's
policy before the state is announced, then does its work. ``handle_event`` returns the step to the next state,
or None to stay. A step that the table does not list raises IllegalTransition.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final

from halftunnel_vpn.client.legs.handshake_sentences import explain, is_passing
from halftunnel_vpn.client.supervisor import events
from halftunnel_vpn.client.supervisor.base_state import State, StateContext, Step, Transitions
from halftunnel_vpn.client.supervisor.events import Event, Target, TunnelEvent
from halftunnel_vpn.client.supervisor.exit_choices import wanted_of
from halftunnel_vpn.client.supervisor.state_policies import StatePolicies
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.errors import HandshakeError, HostError

log = logging.getLogger(__name__)


class Disconnected(State):
    """No tunnel is wanted. Everything may leave, unless the kill switch is ``always``."""

    name = TunnelState.DISCONNECTED
    allows = staticmethod(StatePolicies.locked)
    leads_to: ClassVar[Transitions] = {
        TunnelEvent.UP: TunnelState.CONNECTING,
        TunnelEvent.DOWN: TunnelState.DISCONNECTED,
    }

    async def enter(self, context: StateContext) -> str | None:
        """Record that no tunnel is wanted, and apply the policy."""
        context.intent.note_down()
        return await super().enter(context)

    async def handle_event(self, event: Event, context: StateContext) -> Step | None:
        """Connect on demand. `htvpn down` lifts what a crash has left."""
        if isinstance(event, events.Up):
            return Step(TunnelEvent.UP, Connecting(event.target))
        if isinstance(event, events.Down):
            context.opening.close()
            context.enforcement.release()
            return Step(TunnelEvent.DOWN, Disconnected())
        _refuse(event)
        return None


class TunnelWanted(State):
    """A tunnel is wanted. ``goes_on``: after a temporary failure another attempt follows."""

    def __init__(self, target: Target | None, *, goes_on: bool) -> None:
        self.target = target
        self.goes_on = goes_on

    async def handle_event(self, event: Event, context: StateContext) -> Step | None:
        """Act on commands and on the end of the tunnel."""
        match event:
            case events.Down():
                return Step(TunnelEvent.DOWN, Disconnecting())
            case events.Up(target) if target.differs_in_choice_alone(self.target):
                return self._choose(target, context)
            case events.Up(target) if target != self.target:
                return Step(TunnelEvent.UP, Connecting(target))
            case events.Up():
                return self._try_now(self.target) if context.runner.tunnel is None else None
            case events.ProfileChanged(target):
                return self._try_now(target)
            case events.ChoiceFailed(wanted, before) if wanted == self.target:
                self.target = before
                context.intent.note(wanted_of(before))
            case events.Reconnect():
                if self.target is None:
                    raise _nothing_is_up()
                if context.runner.tunnel is None:
                    return self._try_now(self.target)
                context.runner.tunnel.reconnect()
            case events.OpenPortal():
                _refuse(event)
            case events.TunnelEnded(failure) if self.target is not None:
                if failure is None:
                    return self._try_now(self.target)
                context.retries.diagnose(self, self.target.profile, failure)
            case events.Diagnosed() if event.asked_by is self:
                return self._failed(event, context)
        return None

    def _choose(self, target: Target, context: StateContext) -> Step | None:
        """Use another exit of the profile. The tunnel stays, and makes the new session first."""
        before, self.target = self.target, target
        if context.runner.tunnel is None:
            return self._try_now(target)
        if before is not None and before != target:
            context.runner.choose(target, before)
        return None

    def _try_now(self, target: Target | None, *, after: float | None = None) -> Step:
        event = TunnelEvent.RETRY if TunnelEvent.RETRY in self.leads_to else TunnelEvent.UP
        return Step(event, Connecting(target, goes_on=self.goes_on, after=after))

    def _failed(self, diagnosed: events.Diagnosed, context: StateContext) -> Step:
        failure, portal = diagnosed.failure, diagnosed.portal
        sentence = explain(failure) if isinstance(failure, HandshakeError) else str(failure)
        is_guarded = context.enforcement.is_guarded
        is_end = not is_guarded and not (self.goes_on and is_passing(failure))
        if context.intent.is_kept or not is_end:  # a client in the foreground ends with the sentence anyway
            log.warning("%s", sentence)  # without the portal, which is a destination
        if portal is not None:
            sentence = portal.sentence(sentence, is_blocked=is_guarded, goes_on=is_guarded or self.goes_on)
        if is_end:
            return Step(TunnelEvent.FAILED, Disconnected(), sentence)
        after = context.retries.next_delay(failure, portal)
        if is_guarded:
            blocked = Blocked(self.target, goes_on=self.goes_on, after=after)
            return Step(TunnelEvent.BLOCKED, blocked, sentence)
        step = self._try_now(self.target, after=after)
        return Step(step.event, step.state, sentence)


class Connecting(TunnelWanted):
    """The first session is being set up. Our own legs may leave, and what a captive portal needs.

    ``after`` is the number of seconds until the first dial; None: at once, or when the previous tunnel ends.
    """

    name = TunnelState.CONNECTING
    allows = staticmethod(StatePolicies.with_portal)
    leads_to: ClassVar[Transitions] = {
        TunnelEvent.UP: TunnelState.CONNECTING,
        TunnelEvent.RETRY: TunnelState.CONNECTING,
        TunnelEvent.DOWN: TunnelState.DISCONNECTING,
        TunnelEvent.ESTABLISHED: TunnelState.CONNECTED,
        TunnelEvent.FAILED: TunnelState.DISCONNECTED,
        TunnelEvent.BLOCKED: TunnelState.BLOCKED,
    }

    def __init__(self, target: Target | None, *, goes_on: bool = False, after: float | None = None) -> None:
        super().__init__(target, goes_on=goes_on)
        self._after = after
        self._waits_for_end = False

    async def enter(self, context: StateContext) -> str | None:
        """Apply the policy. Then start the tunnel, or end the previous one."""
        problem = await context.enforcement.attempt(self.allows, always=False)
        if context.runner.tunnel is not None:
            self._waits_for_end = True
            context.runner.stop()
        elif self._after is not None:
            context.retries.arm(self, self._after)
        elif problem is not None:
            context.post(events.Diagnosed(self, HostError(problem), None))
            return None  # the error is reported with the next state
        elif self.target is not None:
            context.runner.start(self.target)
        return problem

    async def handle_event(self, event: Event, context: StateContext) -> Step | None:
        """Follow the tunnel, or wait for the previous one to end."""
        match event:
            case events.Up(target) if self._waits_for_end and target.differs_in_choice_alone(self.target):
                self.target = target  # the tunnel that ends is another one
                return None
            case events.TunnelEnded(failure) if self._waits_for_end:
                if isinstance(failure, HostError):
                    log.warning("the previous tunnel did not end cleanly: %s", failure)
                return self._try_now(self.target)
            case events.RetryDue():
                return self._try_now(self.target) if event.asked_by is self else None
            case events.OpenPortal() if context.enforcement.is_guarded:
                return None
            case events.PhaseChanged() if not self._waits_for_end:
                if context.runner.phase() in (TunnelState.CONNECTED, TunnelState.RECONNECTING):
                    return Step(TunnelEvent.ESTABLISHED, Connected(self.target))
                return None
        return await super().handle_event(event, context)


class _Established(TunnelWanted):
    """The tunnel has worked, so after a later failure it is tried again. Its own table has the policy."""

    allows = staticmethod(StatePolicies.with_legs)

    def __init__(self, target: Target | None) -> None:
        super().__init__(target, goes_on=True)


class Connected(_Established):
    """Both directions carry data. Our own legs may leave; everything else uses the tunnel."""

    name = TunnelState.CONNECTED
    leads_to: ClassVar[Transitions] = {
        TunnelEvent.UP: TunnelState.CONNECTING,
        TunnelEvent.DOWN: TunnelState.DISCONNECTING,
        TunnelEvent.LOST: TunnelState.RECONNECTING,
        TunnelEvent.FAILED: TunnelState.DISCONNECTED,
        TunnelEvent.BLOCKED: TunnelState.BLOCKED,
    }

    async def enter(self, context: StateContext) -> str | None:
        """Reset the failures, and close what was open for a captive portal."""
        context.retries.forget()
        context.opening.close()
        context.post(events.PhaseChanged())
        return await super().enter(context)

    async def handle_event(self, event: Event, context: StateContext) -> Step | None:
        """Follow the tunnel."""
        if isinstance(event, events.PhaseChanged):
            is_lost = context.runner.phase() is TunnelState.RECONNECTING
            return Step(TunnelEvent.LOST, Reconnecting(self.target)) if is_lost else None
        return await super().handle_event(event, context)


class Reconnecting(_Established):
    """A direction or the session is lost; device, routes and policy stay as when connected."""

    name = TunnelState.RECONNECTING
    leads_to: ClassVar[Transitions] = {
        TunnelEvent.UP: TunnelState.CONNECTING,
        TunnelEvent.DOWN: TunnelState.DISCONNECTING,
        TunnelEvent.REGAINED: TunnelState.CONNECTED,
        TunnelEvent.FAILED: TunnelState.DISCONNECTED,
        TunnelEvent.BLOCKED: TunnelState.BLOCKED,
    }

    async def handle_event(self, event: Event, context: StateContext) -> Step | None:
        """Follow the tunnel. End it for a captive portal, because it would carry the browser's requests."""
        match event:
            case events.PhaseChanged():
                is_back = context.runner.phase() is TunnelState.CONNECTED
                return Step(TunnelEvent.REGAINED, Connected(self.target)) if is_back else None
            case events.OpenPortal():
                return self._try_now(self.target)
        return await super().handle_event(event, context)


class Blocked(TunnelWanted):
    """A tunnel is wanted but not possible. Our own legs may leave, and what a captive portal needs.

    ``after`` is the number of seconds until the next attempt; None: wait for a command.
    """

    name = TunnelState.BLOCKED
    allows = staticmethod(StatePolicies.with_portal)
    leads_to: ClassVar[Transitions] = {
        TunnelEvent.UP: TunnelState.CONNECTING,
        TunnelEvent.RETRY: TunnelState.CONNECTING,
        TunnelEvent.DOWN: TunnelState.DISCONNECTING,
    }

    def __init__(self, target: Target | None, *, goes_on: bool, after: float | None) -> None:
        super().__init__(target, goes_on=goes_on)
        self._after = after

    async def enter(self, context: StateContext) -> str | None:
        """Apply the policy, and arm the next attempt."""
        if self._after is not None:
            context.retries.arm(self, self._after)
        return await super().enter(context)

    async def handle_event(self, event: Event, context: StateContext) -> Step | None:
        """Try again when the pause is over."""
        match event:
            case events.RetryDue():
                return self._try_now(self.target) if event.asked_by is self else None
            case events.OpenPortal() if context.enforcement.is_guarded:
                return None
        return await super().handle_event(event, context)


class Disconnecting(State):
    """The host is being restored. Only our own legs may leave, to end the session."""

    name = TunnelState.DISCONNECTING
    allows = staticmethod(StatePolicies.with_legs)
    leads_to: ClassVar[Transitions] = {
        TunnelEvent.DOWN: TunnelState.DISCONNECTING,
        TunnelEvent.STOPPED: TunnelState.DISCONNECTED,
    }

    async def enter(self, context: StateContext) -> str | None:
        """End the tunnel. The policy in force stays until the host is restored."""
        context.intent.note_down()
        context.opening.close()
        context.enforcement.release()
        if context.runner.tunnel is None:
            context.post(events.TunnelEnded(None))
        else:
            context.runner.stop()
        return None

    async def handle_event(self, event: Event, context: StateContext) -> Step | None:
        """Wait for the end of the tunnel."""
        if isinstance(event, events.TunnelEnded):
            problem = str(event.failure) if isinstance(event.failure, HostError) else None
            return Step(TunnelEvent.STOPPED, Disconnected(), problem)
        _refuse(event)
        return None


STATES: Final[Mapping[TunnelState, type[State]]] = MappingProxyType(
    {
        state.name: state
        for state in (Disconnected, Connecting, Connected, Reconnecting, Blocked, Disconnecting)
    }
)

START: Final = TunnelState.DISCONNECTED


def _refuse(event: Event) -> None:
    """Raise HostError for a command that is invalid in this state."""
    if isinstance(event, events.Reconnect):
        raise _nothing_is_up()
    if isinstance(event, events.OpenPortal):
        raise HostError(
            "a captive portal is not blocked now: it can be opened while the kill switch "
            "blocks and there is no tunnel, or none with legs"
        )


def _nothing_is_up() -> HostError:
    return HostError("nothing is up: run `htvpn up` first")
