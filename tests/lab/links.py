"""What a link of the lab carried, and how it can be made worse: rate by tc-tbf(8), loss by nft's numgen."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lab.namespaces import command


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """What one end of a link has sent and received since it was made. Bytes include Ethernet headers."""

    sent_bytes: int
    sent_packets: int
    received_bytes: int
    received_packets: int

    def __sub__(self, earlier: LinkCounters) -> LinkCounters:
        """What came in between."""
        return LinkCounters(
            self.sent_bytes - earlier.sent_bytes,
            self.sent_packets - earlier.sent_packets,
            self.received_bytes - earlier.received_bytes,
            self.received_packets - earlier.received_packets,
        )


def counters(namespace: str, device: str) -> LinkCounters:
    """The counters of one device as they stand; an offloaded aggregate counts as one packet."""
    (link,) = json.loads(command(["ip", "-n", namespace, "-j", "-s", "link", "show", "dev", device]))
    sent, received = link["stats64"]["tx"], link["stats64"]["rx"]
    return LinkCounters(sent["bytes"], sent["packets"], received["bytes"], received["packets"])


def limit_rate(namespace: str, device: str, rate: str | None) -> None:
    """Let the device send at most ``rate`` (``100mbit``), with up to 50 ms of queue; None lifts it."""
    base = ["tc", "-n", namespace, "qdisc"]
    if rate is None:
        command([*base, "replace", "dev", device, "root", "noqueue"])
    else:
        shape = ["tbf", "rate", rate, "burst", "128kb", "latency", "50ms"]
        command([*base, "replace", "dev", device, "root", *shape])


def lose(namespace: str, device: str, permille: int) -> None:
    """Drop so many of a thousand packets that the device receives, at random; 0 lifts it, 1000 is a cut.

    What counts as a packet is an aggregate of up to 64 KiB where the sender has segmentation offload.
    """
    table = f"loss_{device.replace('-', '_')}"
    lines = [f"add table inet {table}", f"delete table inet {table}"]
    if permille:
        drop = f"numgen random mod 1000 < {permille} drop" if permille < 1000 else "drop"
        lines += [
            f"add table inet {table}",
            f"add chain inet {table} loss {{ type filter hook prerouting priority -400; }}",
            f'add rule inet {table} loss iifname "{device}" {drop}',
        ]
    command(["ip", "netns", "exec", namespace, "nft", "-f", "-"], text="\n".join([*lines, ""]))
