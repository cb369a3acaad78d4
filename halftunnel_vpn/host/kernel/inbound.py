"""Replies to connections from outside leave through the interface they came in on, not through the tunnel.

conntrack knows which side opened a connection. Packets in the reply direction that this host sends, or a
container behind a forwarded port, get a mark of their own. With it they are routed as if there were no
tunnel. If several devices have a default route, the one on which the connection came in is used. Connections
that this host opens never get the mark, whatever address they are bound to: their first packet is not a
reply. A mark of this kind that a program sets on its socket is removed here. See nft(8), chains of type
route.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from halftunnel_vpn.host.host_state import LAN_NETWORKS, HostState, uplink_mark
from halftunnel_vpn.host.kernel.accepted import MAX_ACCEPTED, Accepted, accepted_connections
from halftunnel_vpn.host.kernel.nft import TABLE, Chain, NamedSet, Ruleset, marks
from halftunnel_vpn.host.kernel.routes import Uplink

MAX_PEERS: Final = 65536
"""Remembered remote UDP endpoints per IP version. Replies to further ones enter the tunnel."""

PEER_TIMEOUT: Final = "3m"
"""How long a remote UDP endpoint is remembered after its last datagram, in the notation of nft."""

PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")

_WORDS: Final = {4: "ip", 6: "ip6"}


@dataclass(frozen=True, slots=True)
class Inbound:
    """The part of the table for replies. Without ``state``, connections from outside are cut off."""

    state: HostState | None
    uplinks: tuple[Uplink, ...] = ()

    @property
    def marks(self) -> tuple[int, ...]:
        """The marks of replies: one general mark, and one for each of several uplinks."""
        if self.state is None:
            return ()
        found = [uplink_mark(self.state.mark, uplink.index) for uplink in self.uplinks]
        return (self.state.inbound_mark, *found)

    def ruleset(self) -> Ruleset:
        """Return the part of our table that marks replies."""
        state = self.state
        if state is None:
            return Ruleset(())
        return Ruleset(
            (
                Chain("inbound_source", "output priority raw", tuple(_source(state)), type="route"),
                Chain("inbound_unseen", "prerouting priority mangle", tuple(_unseen(state))),
                Chain("inbound_in", "prerouting priority mangle + 1", tuple(self._incoming(state))),
                Chain("inbound_forwarded", "prerouting priority dstnat + 10", tuple(self._forwarded())),
                Chain("inbound_output", "output priority mangle", tuple(self._outgoing(state)), type="route"),
                Chain("inbound_held", "output priority filter", self._held()),
            ),
            tuple(_sets()),
        )

    def _incoming(self, state: HostState) -> list[str]:
        """Return rules that mark incoming packets for the reverse-path filter, and replies of containers."""
        rules = [f'iifname {{ "lo", "{state.tun}" }} return', f"meta mark {state.mark:#x} return"]
        begun = "ct direction original"
        if self.uplinks:
            known = marks(*self.marks[1:])
            for uplink, mark in zip(self.uplinks, self.marks[1:], strict=True):
                rules.append(f'iifname "{uplink.device}" {begun} ct mark 0 ct mark set {mark:#x}')
            rules += [
                f"ct direction reply ct mark {known} meta mark set ct mark return",
                f"{begun} ct mark {known} fib daddr type local meta mark set ct mark",
            ]
        replies = f"ct direction reply ct mark != {_unseen_mark(state):#x}"
        rules.append(f"{replies} meta mark set {state.inbound_mark:#x} return")
        if state.gateway:
            rules.append(f"iifname {{ {', '.join(_quoted(state.gateway))} }} return")
        if not self.uplinks:
            rules.append(f"{begun} fib daddr type local meta mark set {state.inbound_mark:#x}")
        else:
            rules.append(f"{begun} meta mark 0 fib daddr type local meta mark set {state.inbound_mark:#x}")
        for version, word in _WORDS.items():
            endpoint = f"{word} saddr . udp sport . udp dport"
            for ports in _server_ports():
                # Two rules: nft 1.0.6 accepts no map from a concatenation to an IPv6 address here.
                rules.append(
                    f"{begun} fib daddr type local udp dport {ports} "
                    f"update @inbound_peers{version} {{ {endpoint} }} "
                    f"update @inbound_asked{version} {{ {word} saddr : {word} daddr }}"
                )
        return rules

    def _forwarded(self) -> list[str]:
        """Return rules for forwarded ports. They lead to a container or the LAN; others get no mark."""
        rules = []
        for version, word in _WORDS.items():
            networks = ", ".join(text for text in LAN_NETWORKS if (":" in text) == (version == 6))
            rules.append(
                f"meta mark {marks(*self.marks)} ct direction original ct status dnat "
                f"{word} daddr != {{ {networks} }} meta mark set 0"
            )
        return rules

    def _outgoing(self, state: HostState) -> list[str]:
        own = marks(state.mark, state.excluded_mark, state.only_mark)
        rules = [
            f"meta mark {own} return",
            f"meta mark {marks(*self.marks)} meta mark set 0",  # only these rules may set it
            "tcp flags & (syn | ack) == syn return",
            'oifname "lo" fib daddr type local return',
        ]
        for version, word in _WORDS.items():
            inside = [str(item.ip) for item in state.interfaces() if item.version == version]
            if inside:
                rules.append(f"{word} saddr {{ {', '.join(inside)} }} return")
        if self.uplinks:
            rules.append(f"ct direction reply ct mark {marks(*self.marks[1:])} meta mark set ct mark return")
        rules.append(
            f"ct direction reply ct mark != {_unseen_mark(state):#x} meta mark set {state.inbound_mark:#x}"
        )
        for version, word in _WORDS.items():
            ends = f"{word} saddr . tcp sport . {word} daddr . tcp dport"
            rules.append(f"{ends} @inbound_tcp{version} meta mark set {state.inbound_mark:#x}")
        return rules

    def _held(self) -> tuple[str, ...]:
        """Return rules for packets routed to the loopback device that are no replies (see ``routes.py``)."""
        held = f'oifname "lo" meta mark != {marks(*self.marks)} fib daddr type unicast'
        return f"{held} meta l4proto tcp reject with tcp reset", f"{held} reject with icmpx admin-prohibited"


def elements(connections: Iterable[Accepted] | None = None) -> str:
    """Return lines for `nft -f`: the connections that were accepted before conntrack saw them begin."""
    lines = []
    connections = accepted_connections() if connections is None else list(connections)
    for version in _WORDS:
        ends = [
            f"{item.local} . {item.local_port} . {item.remote} . {item.remote_port}"
            for item in connections
            if (":" in item.local) == (version == 6)
        ]
        if ends:
            lines.append(f"add element {TABLE} inbound_tcp{version} {{ {', '.join(dict.fromkeys(ends))} }}\n")
    return "".join(lines)


def _unseen(state: HostState) -> tuple[str, ...]:
    """Return rules that note connections which conntrack sees for the first time in the middle.

    conntrack takes the first sender it sees for the side that opened the connection. It may not run before
    our table exists, or after something removed the table. Packets from the tunnel are answers to this host.
    A TCP segment that does not open a connection belongs to one that either side may have opened. Those that
    this host has accepted are listed by address (:func:`elements`).
    """
    begun, note = "ct state new ct mark 0", f"ct mark set {_unseen_mark(state):#x}"
    opening = "tcp flags & (fin | syn | rst | ack) != syn"
    return f'iifname "{state.tun}" {begun} {note}', f'iifname != "lo" {begun} {opening} {note}'


def _unseen_mark(state: HostState) -> int:
    """Return a conntrack mark that nothing else here sets (as a packet mark it has another meaning)."""
    return state.only_mark


def _source(state: HostState) -> list[str]:
    """Return rules that give a datagram the source address that its peer has used, not the tunnel's.

    A UDP server that is bound to no address leaves the choice to the route. Ports that the kernel gives to
    clients are excepted. Otherwise a remote host could redirect a client's flow by sending to it first.
    """
    rules = []
    for version, word in _WORDS.items():
        inside = [str(item.ip) for item in state.interfaces() if item.version == version]
        for ports in _server_ports() if inside else ():
            rules.append(
                f"udp sport {ports} {word} saddr {{ {', '.join(inside)} }} "
                f"{word} daddr . udp dport . udp sport @inbound_peers{version} "
                f"{word} saddr set {word} daddr map @inbound_asked{version}"
            )
    return rules


def _sets() -> list[NamedSet]:
    remembered = ("flags dynamic,timeout", f"timeout {PEER_TIMEOUT}", f"size {MAX_PEERS}")
    found = []
    for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        ends = f"type {kind} . inet_service . {kind} . inet_service"
        peers = f"type {kind} . inet_service . inet_service"
        found += [
            NamedSet(f"inbound_tcp{version}", (ends, f"size {MAX_ACCEPTED}")),
            NamedSet(f"inbound_peers{version}", (peers, *remembered)),
            NamedSet(f"inbound_asked{version}", (f"type {kind} : {kind}", *remembered), kind="map"),
        ]
    return found


def _server_ports() -> tuple[str, ...]:
    """Return the ports that the kernel does not give to clients, as ranges."""
    try:
        low, high = map(int, PORT_RANGE.read_text().split())
    except (OSError, ValueError):
        low, high = 32768, 60999
    ranges = ((1, low - 1), (high + 1, 65535))
    return tuple(f"{first}-{last}" for first, last in ranges if first <= last)


def _quoted(names: Sequence[str]) -> list[str]:
    return [f'"{name}"' for name in names]
