"""The exit server: creates its parts and connects them."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from halftunnel_vpn.config.clients import CLIENTS
from halftunnel_vpn.config.server import ServerConfig
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.turns import TurnLimits
from halftunnel_vpn.dns.upstream import UpstreamResolver
from halftunnel_vpn.host.kernel.addresses import Address, local_addresses
from halftunnel_vpn.observe.log_format import PeerLog
from halftunnel_vpn.protocol.handshake import ReplayGuard
from halftunnel_vpn.protocol.handshake_payloads import OPENS_URGENT_LEGS, ClientHello
from halftunnel_vpn.protocol.keys import KeyPair
from halftunnel_vpn.protocol.shaping_terms import ShapingMode, ShapingTerms
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.protocol.trace_ports import NO_TRACING, SessionTrace, Tracing
from halftunnel_vpn.server.accounting.accounts import COLLECT_INTERVAL, Accounts
from halftunnel_vpn.server.accounting.ledger import LEDGER_FILE, Ledger
from halftunnel_vpn.server.client_list import ClientList
from halftunnel_vpn.server.client_nat import ClientNat
from halftunnel_vpn.server.dialing import Dialer
from halftunnel_vpn.server.egress import EgressPolicy
from halftunnel_vpn.server.exit_files import read_keys
from halftunnel_vpn.server.exit_limits import (
    SessionsMemory,
    dial_limits,
    gate_limits,
    memory_limit,
    nat_limits,
)
from halftunnel_vpn.server.gate import Gate, GateOwner
from halftunnel_vpn.server.guard_file import GuardFile
from halftunnel_vpn.server.invitations import Invitations
from halftunnel_vpn.server.nat import Nat
from halftunnel_vpn.server.resolver_list import ResolverList
from halftunnel_vpn.server.sessions import Registry
from halftunnel_vpn.server.shaping_grant import leg_policy, receipt_interval, shaping_plan
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.memory_budget import Memory
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.session.session_options import SendingOptions, SessionOwner
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import contained

log = logging.getLogger(__name__)

HOUSEKEEPING_INTERVAL = 5.0
"""The poll interval in seconds for external changes: clients, own addresses, IPv6."""

DRAIN_POLL = 0.02
"""The poll interval in seconds for undelivered data while the exit stops."""

_UNIQUE_LOCAL = ipaddress.IPv6Network("fc00::/7")


class Exit:
    """A running exit, except its listeners. ``tasks`` owns the tasks that it starts."""

    def __init__(
        self,
        directory: Path,
        config: ServerConfig,
        driver: Driver,
        tasks: asyncio.TaskGroup,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        limits = config.limits
        self.config = config
        self.counters = Counters()
        self._driver = driver
        self._tasks = tasks
        # Work for streams that is going on: DNS queries.
        self._running: set[asyncio.Task[None]] = set()
        # Limits the lines about each peer.
        self._peer_log = PeerLog(log)
        # The last timestamp of each client, and the file that keeps them over a restart.
        self._guard = ReplayGuard()
        self._guard_file = GuardFile(self._guard, directory, self._start, self.counters)
        # Whether the exit reaches IPv6 destinations.
        self._ipv6 = False
        # The bytes that sessions may hold.
        self._sessions_memory = SessionsMemory(memory_limit(limits))
        # The open sessions.
        self.registry = Registry(
            driver, self.counters, idle_timeout=limits.session_idle, refused=self.log_refusal
        )
        # Who may connect.
        self.clients = ClientList(
            directory / CLIENTS, limit=limits.max_clients, changed=self._revoke_unlisted
        )
        # Which destinations are allowed.
        self.policy = EgressPolicy(
            allow=config.egress.allow, deny=config.egress.deny, nat64=config.egress.nat64
        )
        # The configured name servers, or the machine's.
        self._resolvers = ResolverList(config)
        self.resolver = UpstreamResolver(
            self._resolvers.current(), counters=self.counters, limits=TurnLimits()
        )
        # The sockets of all streams, and their limits.
        self.nat = Nat(
            self.policy,
            Dialer(driver, dial_limits(limits), self.counters),
            self.resolver,
            nat_limits(limits),
            has_ipv6=lambda: self._ipv6,
            start=self._start,
        )
        # Admits legs.
        self.gate = Gate(
            self.registry,
            read_keys(directory / config.server.private_key),
            gate_limits(config),
            self._guard,
            self._gate_owner(directory, tracing),
        )
        # What each client has used, and the terms it has.
        self.accounts = Accounts(
            self.nat.meters,
            Ledger(directory / LEDGER_FILE, self.counters),
            entry_of=lambda client: self.clients.entries.get(client),
            in_session=lambda: [member.client for member in self.registry],
            has_legs=lambda client: self.registry.legs_of(client) > 0,
            cut_off=self.cut_off,
        )
        # Reads the meters of the clients.
        self._collecting = driver.wheel.timer(self._collect)
        # Checks for external changes.
        self._housekeeping = driver.wheel.timer(self._refresh)
        self._guard_file.load()
        self.accounts.begin(driver.clock(), time.time())
        self._collecting.arm(driver.clock() + COLLECT_INTERVAL)
        self.policy.set_own_addresses(None)
        self._refresh(driver.clock())

    def _gate_owner(self, directory: Path, tracing: Tracing) -> GateOwner:
        return GateOwner(
            client_of=self.clients.name_of,
            refusal_of=lambda client: self.accounts.refusal_of(client),
            make_session=self._make_session,
            guard_changed=self._guard_file.changed,
            has_ipv6=lambda: self._ipv6,
            invitations=Invitations(
                directory,
                time.time,
                self.counters,
                admitted=self.clients.refresh,
                has_room=lambda: self.clients.has_room,
            ),
            tracing=tracing,
        )

    @property
    def memory(self) -> Memory:
        """The memory budget of all sessions together."""
        return self._sessions_memory.total

    async def drain(self) -> None:
        """Refuse new streams. Wait until all data for the clients is delivered, or for stop_timeout."""
        self.nat.is_stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.limits.stop_timeout):
                while not self._owes_nothing():  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_POLL)

    def _owes_nothing(self) -> bool:
        return all(member.session.leg_set.owes_nothing for member in self.registry)

    def close(self) -> None:
        """End every session cleanly and notify the clients."""
        self._housekeeping.cancel()
        self._collecting.cancel()
        self.registry.close_all(ResetCode.SHUTDOWN)

    def log_refusal(self, peer: str, reason: str) -> None:
        """Log a refusal, at most one line per peer and minute."""
        self._peer_log.refused(peer, reason, self._driver.clock())

    def cancel_tasks(self) -> None:
        """Cancel pending DNS queries and save what is not on disk yet."""
        for task in self._running:
            task.cancel()
        self._guard_file.save()
        self.accounts.close(self._driver.clock(), time.time())

    def apply(self, config: ServerConfig, keys: KeyPair) -> None:
        """Use another configuration and key. Running sessions go on as they began, under the new totals."""
        limits = config.limits
        self.config = config
        self._sessions_memory.set_limit(memory_limit(limits))
        self.registry.idle_timeout = limits.session_idle
        self.clients.set_limit(limits.max_clients)
        self.policy.set_rules(allow=config.egress.allow, deny=config.egress.deny, nat64=config.egress.nat64)
        self.nat.dialer.limits = dial_limits(limits)
        self.nat.limits = nat_limits(limits)
        self.gate.set_terms(keys, gate_limits(config))
        self._resolvers = ResolverList(config)
        self._refresh(self._driver.clock())

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(contained(work, "the work of one stream"))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _make_session(
        self, hello: ClientHello, client: str, terms: ShapingTerms | None, trace: SessionTrace | None
    ) -> Session:
        session_id = hello.session_id
        limits = self.config.limits
        self.accounts.apply_rate(client)
        share = self.registry.fairness.share_of(client)
        pump = self._driver.pump(lambda now: session.pump(now))
        shaping = shaping_plan(terms, secrets.token_bytes, self._shaped_sessions, self.config.shaping.delay)
        if shaping is not None:
            self._driver.blur()
        is_shaped = terms is not None and terms.mode is not ShapingMode.OFF
        session = Session(
            session_id,
            SessionOwner(
                self._driver.wheel,
                secrets.token_bytes,
                self.counters,
                pump.wake,
                lambda: self.registry.ended(session_id),
                trace,
            ),
            SessionLimits(
                max_streams=limits.streams_per_client,
                window_pool=limits.session_window,
                stream_window=limits.stream_window,
                keepalive=limits.keepalive,
                memory=self._sessions_memory.of_client(share),
            ),
            self._driver.clock(),
            is_client=False,
            acceptor=ClientNat(self.nat, client, share.opening),
            sending=SendingOptions(
                leg_policy(terms, secrets.token_bytes),
                shaping=shaping,
                receipt_interval=receipt_interval(terms),
                asks_for_legs=hello.capabilities & OPENS_URGENT_LEGS != 0 and not is_shaped,
            ),
        )
        return session

    def _shaped_sessions(self) -> int:
        return sum(member.session.shaper is not None for member in self.registry)

    def cut_off(self, client: str) -> None:
        """End the sessions of a client that may not be connected any more; its next handshake says why."""
        for member in self.registry.sessions_of(client):
            self.counters.count("sessions-cut-off")
            member.close(ResetCode.DENIED)

    def _collect(self, now: float) -> None:
        self._collecting.arm(now + COLLECT_INTERVAL)
        self.accounts.collect(now, time.time())
        self.accounts.write_soon(now, self._start)

    def _revoke_unlisted(self) -> None:
        """End everything of keys that are no longer listed: sessions and waiting handshakes."""
        self.gate.drop_unlisted(self.clients.listed)
        self.registry.close_unlisted(self.clients.listed)

    def _refresh(self, now: float) -> None:
        self._housekeeping.arm(now + HOUSEKEEPING_INTERVAL)
        self.resolver.set_servers(self._resolvers.current())
        self.clients.refresh()
        self._revoke_unlisted()
        try:
            own = local_addresses()
        except OSError as error:  # e.g. out of descriptors: the last addresses stay valid
            if not self.counters.dropped["addresses-not-read"]:
                log.warning("the addresses of this machine cannot be read: %s", error)
            self.counters.drop("addresses-not-read")
            return
        self.policy.set_own_addresses(own)
        mode = self.config.egress.ipv6
        self._ipv6 = _has_ipv6(own) if mode == "auto" else mode == "on"


def _has_ipv6(own: frozenset[Address]) -> bool:
    """Return whether one of the exit's own addresses can reach beyond its own network."""
    return any(
        isinstance(address, ipaddress.IPv6Address)
        and not (address.is_loopback or address.is_link_local or address in _UNIQUE_LOCAL)
        for address in own
    )
