"""Both paths as their observers see them: tcpdump at the client's ends of the links, read while it writes."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from halftunnel_vpn.audit.pcap import PcapReader, Segment
from halftunnel_vpn.errors import HostError
from lab.audit.traces import Trace
from lab.topology import CLIENT, ROAD_A, ROAD_B, Lab
from lab.tunnel import ROAD_PORT

START_TIMEOUT: Final = 60.0
"""Seconds until tcpdump must be listening."""

SNAPSHOT: Final = 96
"""Bytes kept of each frame: its headers."""

WHOLE_FRAME: Final = 2000
"""Bytes that hold any frame of the links. With more, the kernel's ring has few places, and drops."""

SILENCE: Final = 0.7
"""Seconds after which a path counts as silent."""

SILENT_BYTES: Final = 3000
"""Bytes of payload on both paths in ``SILENCE`` that are no traffic: keepalives."""

QUIET_TIMEOUT: Final = 40.0
"""Seconds after a load within which both paths must fall silent."""

_POLL: Final = 0.1


class Packet(NamedTuple):
    """A payload on a path."""

    at: float
    """Unix time."""
    size: int
    """Bytes; positive from the client to the exit."""
    leg: str


class Watch:
    """Captures on both paths of a lab, from :meth:`start` on."""

    def __init__(self, lab: Lab, silence: float = SILENCE, *, whole: bool = False) -> None:
        """``whole``: capture frames as they are, and not their headers alone."""
        self._lab = lab
        self._silence = silence
        self._snapshot = WHOLE_FRAME if whole else SNAPSHOT
        self._readers: dict[Path, PcapReader] = {}
        self._offsets: dict[Path, int] = {}
        self._letters: dict[Path, str] = {}
        self._running: list[subprocess.Popen[str]] = []
        # what was read and not yet dropped
        self.packets: list[Packet] = []

    def start(self) -> None:
        """Return when both captures listen. Raises HostError when one does not."""
        for letter, device in (("A", ROAD_A), ("B", ROAD_B)):
            path = self._lab.directory / f"{device}.pcap"
            options = f"-n -s {self._snapshot} -U --immediate-mode -B 16384 -Z root -w {path} tcp"
            self._running.append(self._lab.start(CLIENT, ["tcpdump", "-i", device, *options.split()]))
            self._readers[path], self._offsets[path], self._letters[path] = PcapReader(), 0, letter
        deadline = time.monotonic() + START_TIMEOUT
        while not all("listening on" in self._lab.output(running) for running in self._running):
            if time.monotonic() > deadline:
                raise HostError("tcpdump does not start: install it, and run this as root.")
            time.sleep(0.02)

    def stop(self) -> list[Path]:
        """End the captures and return their files. Raises HostError when a packet went by unseen."""
        for running in self._running:
            running.send_signal(signal.SIGINT)
        for running in self._running:
            running.wait(START_TIMEOUT)
            if "\n0 packets dropped by kernel" not in self._lab.output(running):
                raise HostError(f"tcpdump missed packets: {self._lab.output(running).strip()}")
        return list(self._readers)

    def read(self) -> None:
        """Take what the captures have written since the last call."""
        for path, reader in self._readers.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._offsets[path])
                piece = file.read()
            self._offsets[path] += len(piece)
            for segment in reader.feed(piece):
                if segment.length:
                    self.packets.append(_packet(segment, self._letters[path]))

    def wait_quiet(self) -> bool:
        """Return once both paths are silent; False if they never are."""
        deadline = time.monotonic() + QUIET_TIMEOUT
        while time.monotonic() < deadline:
            self.read()
            since = time.time() - self._silence
            if sum(abs(packet.size) for packet in self.packets if packet.at >= since) < SILENT_BYTES:
                return True
            time.sleep(_POLL)
        return False

    def forget(self) -> None:
        """Drop what was read so far."""
        self.read()
        self.packets.clear()

    def trace(self, site: int, load: int, mode: str, driver: str, answer: Mapping[str, float]) -> Trace:
        """Wait until the paths are silent, and return what was on them since the load began."""
        quiet = self.wait_quiet()
        began = answer["began"]
        end = time.time() - (self._silence if quiet else 0.0)
        seen = sorted(packet for packet in self.packets if began - 0.02 <= packet.at <= end)
        legs = sorted({packet.leg for packet in seen})
        packets = [(int((p.at - began) * 1e6), p.size, legs.index(p.leg)) for p in seen]
        return Trace(
            site, load, mode, driver, began, answer["seconds"], int(answer["bytes"]), quiet, legs, packets
        )


def _packet(segment: Segment, letter: str) -> Packet:
    """The exit's port tells the domain: ``ROAD_PORT`` is the first one's, the next port the second one's."""
    upward = ROAD_PORT <= segment.destination_port < ROAD_PORT + 16
    port = segment.destination_port if upward else segment.source_port
    return Packet(segment.at, segment.length if upward else -segment.length, f"{letter}{port - ROAD_PORT}")
