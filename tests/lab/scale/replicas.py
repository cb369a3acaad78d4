"""Replicas behind a real HAProxy, with one list of clients: how clients spread, and one restart each."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.protocol.certificates import make_authority, make_server_certificate
from lab.scale.place import HOST, Drivers, Place, end, free_port, is_listening

DIRECTIONS: Final = ("upstream", "downstream")

BACK_TIMEOUT: Final = 120.0
"""Seconds within which all clients must be back after a restart, and have one leg for each direction."""

_POLL: Final = 0.1


@dataclass(frozen=True, slots=True)
class ReplicasReport:
    """What was seen: clients and legs of each replica, and for each restart the absences in seconds."""

    clients: list[int]
    legs: list[int]
    longest_absence: list[float]
    median_absence: list[float]
    others_absence: list[float]

    def as_dict(self) -> dict[str, list[float]]:
        """Return plain data."""
        return dataclasses.asdict(self)


def run_replicas(number: int, clients: int, processes: int) -> ReplicasReport:
    """Spread ``clients`` over ``number`` replicas, and restart each replica once. Raises HostError."""
    with tempfile.TemporaryDirectory(prefix="htscale-") as name, Place(Path(name)) as place:
        return Replicas(place, number).run(clients, processes)


class Replicas:
    """Replicas in a place, all with the list of clients of the first."""

    def __init__(self, place: Place, number: int) -> None:
        self._place = place
        self._public = {direction: free_port() for direction in DIRECTIONS}
        self._authority = self._certify()
        urls = [word for way in DIRECTIONS for word in (f"--{way}", f"wss://{HOST}:{self._public[way]}")]
        self.directories = [
            place.make_exit(f"replica{serial}", "--behind-proxy", *urls) for serial in range(number)
        ]
        for directory in self.directories[1:]:
            (directory / "clients").rmdir()
            (directory / "clients").symlink_to(self.directories[0] / "clients")
        self._exits = [place.start_exit(directory) for directory in self.directories]
        self._start_proxy()

    def run(self, clients: int, processes: int) -> ReplicasReport:
        """Connect the clients; restart one replica after the other."""
        profiles, homes = self._make_clients(clients)
        drivers = self._place.start_drivers(self._place.start_destination(), profiles, processes)
        drivers.do("join")
        drivers.do("open", streams=1)
        legs = self._settled_legs(clients)
        longest, middle, others = [], [], []
        drivers.do("away")
        for serial in range(len(self.directories)):
            away = self._restart(serial, drivers, profiles)
            own = sorted(away[index] for index in range(clients) if homes[index] == serial)
            longest.append(max(own, default=0.0))
            middle.append(own[len(own) // 2] if own else 0.0)
            others.append(max((away[index] for index in range(clients) if homes[index] != serial), default=0))
        drivers.do("leave")
        spread = [homes.count(serial) for serial in range(len(self.directories))]
        return ReplicasReport(spread, legs, longest, middle, others)

    def _restart(self, serial: int, drivers: Drivers, profiles: list[Path]) -> list[float]:
        """Restart one replica; return the longest absence of each client, in the order of ``profiles``."""
        end(self._exits[serial])
        self._exits[serial] = self._place.start_exit(self.directories[serial])
        longest = [0.0] * len(profiles)
        until = time.monotonic() + BACK_TIMEOUT
        while time.monotonic() < until:
            time.sleep(_POLL)
            answers = drivers.do("away")
            for part, answer in enumerate(answers):
                for place, seconds in enumerate(answer["longest"]):
                    index = place * len(answers) + part
                    longest[index] = max(longest[index], seconds)
            if all(answer["absent"] == 0 for answer in answers):
                return longest
        raise HostError(f"clients of {self.directories[serial].name} did not come back")

    def _make_clients(self, clients: int) -> tuple[list[Path], list[int]]:
        """Admit the clients as an operator does; return their profiles, and each one's replica."""
        paths = [
            next(line for line in (directory / "server.toml").read_text().splitlines() if "urls = " in line)
            for directory in self.directories
        ]
        profiles, homes = [], []
        directories = [word for directory in self.directories for word in ("--dir", directory)]
        for serial in range(clients):
            profile = self._place.directory / f"c{serial}.toml"
            self._place.htvpn_here("server", "add-client", f"c{serial}", *directories, "--output", profile)
            text = profile.read_text()
            homes.append(next(number for number, urls in enumerate(paths) if urls in text))
            profile.write_text(f'{text}\n[tls]\nca = """\n{self._authority}"""\n')
            profiles.append(profile)
        return profiles, homes

    def _settled_legs(self, clients: int) -> list[int]:
        """Return the legs of each replica, when none is left of a dial that was slow and was repeated."""
        until = time.monotonic() + BACK_TIMEOUT
        while True:
            legs = [self._legs(directory) for directory in self.directories]
            if sum(legs) == len(DIRECTIONS) * clients or time.monotonic() > until:
                return legs
            time.sleep(_POLL)

    def _legs(self, directory: Path) -> int:
        report = json.loads(self._place.htvpn("server", "status", "--json", "--dir", directory))
        return sum(report["legs"].values())

    def _certify(self) -> str:
        now = datetime.now(UTC)
        began, ends = now - timedelta(days=1), now + timedelta(days=1)
        root = make_authority("replicas", not_before=began, not_after=ends)
        made = make_server_certificate(root, [HOST], not_before=began, not_after=ends)
        directory = self._place.directory / "certificates"
        directory.mkdir()
        (directory / f"{HOST}.pem").write_bytes(made.certificate + made.private_key)
        return root.certificate.decode()

    def _start_proxy(self) -> None:
        file = self._place.directory / "haproxy.cfg"
        directories = [word for directory in self.directories for word in ("--dir", directory)]
        certificates = ("--certificates", self._place.directory / "certificates")
        self._place.htvpn("server", "proxy-config", "haproxy", *directories, *certificates, "--output", file)
        program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if program is None:
            raise HostError("haproxy is not installed: apt-get install haproxy")
        process = self._place.start(program, "-db", "-f", file)
        for port in self._public.values():
            if not is_listening(port, process):
                raise HostError(f"haproxy does not listen on port {port}")
