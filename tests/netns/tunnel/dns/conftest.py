"""DNS through the real tunnel, asked by dig; what the resolvers on both sides were asked is looked up."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import Lab
from lab.target import start_lan_resolver


class Reply:
    """What dig shows of one answer."""

    def __init__(self, output: str) -> None:
        self.text = output
        status = re.search(r"status: (\w+)", output)
        self.status = status[1] if status else None
        flags = re.search(r"^;; flags: ([a-z ]*);", output, re.MULTILINE)
        self.flags = flags[1].split() if flags else []
        self.answers = self._section("ANSWER")
        self.authority = self._section("AUTHORITY")

    @property
    def values(self) -> list[str]:
        """The data of the answers, in order."""
        return [value for _, _, _, value in self.answers]

    def _section(self, name: str) -> list[tuple[str, int, str, str]]:
        """The records of a section: name, TTL, type and data."""
        match = re.search(rf";; {name} SECTION:\n(.*?)\n\n", self.text, re.DOTALL)
        lines = match[1].splitlines() if match else []
        found = []
        for line in lines:
            owner, ttl, _, kind, value = line.split(None, 4)
            found.append((owner, int(ttl), kind, value))
        return found


@pytest.fixture(scope="session")
def dig_on() -> Callable[..., Callable[..., Reply]]:
    """``dig_on(rig)(words)`` asks on the client of a rig."""

    def bind(rig) -> Callable[..., Reply]:
        return lambda words: Reply(rig.client(f"dig +tries=1 +time=20 {words}", check=False))

    return bind


@pytest.fixture(scope="session")
def dig(rig, dig_on) -> Callable[[str], Reply]:
    """Asks on the client of the shared tunnel."""
    return dig_on(rig)


@pytest.fixture(scope="session")
def asked_of_target() -> Callable[[Lab], list[str]]:
    """The questions that the target's DNS server of a lab has noted: road, who asked, name and type."""

    def read(lab: Lab) -> list[str]:
        notes = [path.read_text() for path in sorted(lab.directory.glob("*-target-python*.log"))]
        return [line for text in notes for line in text.splitlines()]

    return read


@pytest.fixture(scope="session")
def lan_notes(rig) -> Path:
    """What the resolver on the client's own network was asked; it is there, and nobody should ask it."""
    return start_lan_resolver(rig.lab)


@pytest.fixture
def deaf_target(rig) -> Callable[[str], contextlib.AbstractContextManager[None]]:
    """``with deaf_target("drop")``: the target's DNS server gets nothing, or ``reject``."""

    @contextlib.contextmanager
    def deaf(verdict: str) -> Iterator[None]:
        rule = f"meta l4proto {{ tcp, udp }} th dport 53 {verdict}"
        table = f"table inet deaf {{ chain in {{ type filter hook input priority 0; {rule}; }}; }}"
        rig.on_target(f"nft '{table}'")
        try:
            yield
        finally:
            rig.on_target("nft delete table inet deaf")

    return deaf


@pytest.fixture
def stopwatch() -> Callable[[], float]:
    """Seconds since the test began."""
    began = time.monotonic()
    return lambda: time.monotonic() - began
