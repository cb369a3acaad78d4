"""What an exit reports to its operator, and what can be changed while it runs. Implements ``ExitPort``."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from halftunnel_vpn import __version__
from halftunnel_vpn.config.clients import changed_entry
from halftunnel_vpn.control.exit_routes import ClientRow, ExitReport, InvitationMade, SessionRow
from halftunnel_vpn.control.owned_directory import OwnedDirectory
from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.protocol.handshake_payloads import ExitStatus
from halftunnel_vpn.protocol.keys import Direction, log_id
from halftunnel_vpn.server.exit import Exit
from halftunnel_vpn.server.invitation_maker import make_invitation, seconds_of
from halftunnel_vpn.server.sessions import ExitSession

_REASONS = {
    ExitStatus.DISABLED: "disabled",
    ExitStatus.EXPIRED: "expired",
    ExitStatus.QUOTA_USED_UP: "quota used up",
}


class Administration:
    """``problems`` returns what ``/readyz`` finds, ``clock`` is the monotonic clock of ``exit_``."""

    def __init__(
        self,
        exit_: Exit,
        directory: Path,
        clock: Callable[[], float],
        problems: Callable[[], Awaitable[list[str]]],
    ) -> None:
        self._exit = exit_
        self._directory = directory
        self._clock = clock
        self._problems = problems
        self._started = clock()

    async def report(self) -> ExitReport:
        """Return how the exit does."""
        problems = await self._problems()
        exit_ = self._exit
        exit_.counters.refresh()
        return ExitReport(
            version=__version__,
            directory=str(self._directory.resolve()),
            uptime=self._clock() - self._started,
            problems=problems,
            clients=len(exit_.clients),
            online=len({member.client for member in exit_.registry if member.session.legs}),
            sessions=len(exit_.registry),
            legs={way.name.lower(): exit_.registry.legs[way] for way in Direction},
            streams=exit_.nat.total,
            memory=[exit_.memory.used, exit_.memory.limit],
            dropped=dict(exit_.counters.dropped),
        )

    def clients(self) -> list[ClientRow]:
        """Return every client of the list, by name."""
        by_client: dict[str, list[ExitSession]] = {}
        for member in self._exit.registry:
            by_client.setdefault(member.client, []).append(member)
        return [self._row(name, by_client.get(name, [])) for name in sorted(self._exit.clients.entries)]

    def _row(self, name: str, members: list[ExitSession]) -> ClientRow:
        entry, accounts = self._exit.clients.entries[name], self._exit.accounts
        refusal = accounts.refusal_of(name)
        rates = accounts.rates_of(name)
        # A session without legs waits for a client that is gone.
        connected = [member for member in members if member.session.legs]
        return ClientRow(
            name=name,
            online=bool(connected),
            since=min((self._wall(member.since) for member in connected), default=None),
            last_seen=accounts.last_seen(name),
            sessions=len(members),
            legs=sum(len(member.session.legs) for member in members),
            streams=sum(len(member.session.streams) for member in members),
            sent_rate=rates.sent,
            received_rate=rates.received,
            today=list(accounts.of_day(name)),
            month=list(accounts.of_month(name)),
            refused=None if refusal is None else _REASONS[refusal],
            expires=entry.expires,
            quota=entry.quota,
            rate=entry.rate,
        )

    def sessions(self) -> list[SessionRow]:
        """Return every session, the oldest first."""
        return [
            SessionRow(
                id=log_id(member.session.session_id),
                client=member.client,
                since=self._wall(member.since),
                legs=[f"{leg.direction.name.lower()} {leg.name}" for leg in member.session.legs],
                streams=len(member.session.streams),
                round_trip=member.session.round_trip,
            )
            for member in self._exit.registry
        ]

    def change_client(self, name: str, changes: Mapping[str, str | bool | None]) -> ClientRow:
        """Write other values to the file of a client and apply them; no changes: read the list again."""
        if changes:
            path = self._exit.clients.file_of(name)
            missing = f"this exit has no client {name}"
            if path is None:
                raise ConfigError(missing)
            with OwnedDirectory.open(path.parent, missing=missing, own_rights=True) as files:
                files.change(
                    path.name, lambda text: changed_entry(text, changes, source=path.name), missing=missing
                )
        self._exit.clients.refresh()
        if name not in self._exit.clients.entries:
            raise ConfigError(f"this exit has no client {name}")
        self._exit.accounts.collect(self._clock(), time.time())
        members = self._exit.registry.sessions_of(name)
        return self._row(name, members)

    def invite(self, name: str, validity: str) -> InvitationMade:
        """Make an invitation that is good for ``validity``, such as ``1h``."""
        seconds, now = seconds_of(validity), int(time.time())
        missing = f"there is no {self._directory}; put it back"
        with OwnedDirectory.open(self._directory, missing=missing, own_rights=True) as directory:
            link = make_invitation(directory, self._exit.config, name, seconds=seconds, now=now)
        self._exit.counters.count("invitations-made")
        return InvitationMade(name=name, link=link, expires=now + seconds)

    def _wall(self, moment: float) -> float:
        """Return the time of the wall clock at ``moment`` of the monotonic one."""
        return time.time() - (self._clock() - moment)
