"""`htvpn audit FILE...`: what a capture or a record log shows to those who watch the paths."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from halftunnel_vpn.audit.capture import from_segments
from halftunnel_vpn.audit.observation import Observation
from halftunnel_vpn.audit.pcap import PcapReader, Segment
from halftunnel_vpn.audit.record_log import read_log
from halftunnel_vpn.audit.report import render
from halftunnel_vpn.audit.verdict import judge
from halftunnel_vpn.errors import HostError, UsageError

PIECE = 1 << 20
"""Bytes read of a capture at a time."""


def run(options: Namespace) -> int:
    """Score the files; 1 when the mode's promise is broken, else 0."""
    observation = read(options.files, mode=options.mode, exits=options.exit or ())
    verdict = judge(observation)
    if options.png is not None:
        from halftunnel_vpn.audit.picture import draw

        draw(observation, Path(options.png))
    print(
        json.dumps(verdict.as_data()) if options.json else render(verdict), end="\n" if options.json else ""
    )
    return 1 if verdict.broken else 0


def read(files: Sequence[str], *, mode: str | None = None, exits: Sequence[str] = ()) -> Observation:
    """Return what one record log, or one or several captures of the same time, hold.

    Raises UsageError, HostError.
    """
    try:
        with Path(files[0]).open("rb") as file:
            is_log = file.read(1) in (b"{", b"")
        if is_log:
            if len(files) > 1:
                raise UsageError("only captures can be scored together: name one record log")
            return _read_log(files[0], mode)
        servers = [_server(text) for text in exits]
        segments = sorted(segment for path in files for segment in _segments(path))
    except OSError as error:
        raise HostError(f"{error.filename} cannot be read: {error.strerror}") from error
    return from_segments(segments, mode=mode, servers=servers)


def _read_log(path: str, mode: str | None) -> Observation:
    with Path(path).open(encoding="utf-8", errors="replace") as lines:
        with _naming(path):
            observation = read_log(lines)
    if mode is not None and mode != observation.mode:
        raise UsageError(f"the log was made in mode {observation.mode}: leave out --mode")
    return observation


def _segments(path: str) -> Iterator[Segment]:
    reader = PcapReader()
    with Path(path).open("rb") as file, _naming(path):
        while piece := file.read(PIECE):
            yield from reader.feed(piece)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Say which file is wrong: several may be given."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _server(text: str) -> tuple[bytes, int | None]:
    """Return address and port of ADDR, ADDR:PORT or [ADDR]:PORT."""
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = ipaddress.ip_address(host)
        number = int(port) if port else None
    except ValueError:
        raise UsageError(f"{text} is not an address: write ADDR, ADDR:PORT or [ADDR]:PORT") from None
    return address.packed, number
