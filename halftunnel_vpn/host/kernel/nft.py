"""Our one nft table as data, and its three operations: install, read back, remove. See nft(8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.external_program import ExternalProgram
from halftunnel_vpn.host.host_state import LAN_NETWORKS, HostState
from halftunnel_vpn.host.kernel.routes import DNS_PORT

TABLE: Final = "inet halftunnel"

NFT_TIMEOUT: Final = 30.0
"""Seconds within which one nft command must end."""

_NFT: Final = ExternalProgram(
    "nft", missing="install the package nftables", slow="see what else uses nftables"
)


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order. ``hook`` is in nft's notation (``output priority filter``), "" if only jumped to."""

    name: str
    hook: str
    rules: tuple[str, ...]
    type: str = "filter"
    policy: str = "accept"


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A set or map of the table: its kind and name, and its lines in nft's notation."""

    name: str
    lines: tuple[str, ...]
    kind: str = "set"


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The whole table."""

    chains: tuple[Chain, ...]
    sets: tuple[NamedSet, ...] = ()

    def __add__(self, other: Ruleset) -> Ruleset:
        return Ruleset(self.chains + other.chains, self.sets + other.sets)


def chains(state: HostState, inbound_marks: Sequence[int] = ()) -> tuple[Chain, ...]:
    """Return the chains that the wanted state needs: one chain per purpose.

    ``inbound_marks`` are the marks of replies to connections from outside, which leave outside the tunnel.
    """
    wanted = [_spoofing(state), _replies(state), _own_connections(state)]
    if state.intercept_dns:
        wanted += [_dns_guard(state, hook, inbound_marks) for hook in ("output", "forward")]
    if state.only:
        wanted += [_only_guard(state), *_only_dns(state)]
    if state.gateway:
        wanted += [_gateway_guard(state, inbound_marks), *_gateway_dns(state)]
    return tuple(wanted)


def own_answers(state: HostState) -> tuple[Chain, ...]:
    """Return the chains that let answers to our own packets pass a strict reverse-path filter."""
    return Chain("replies", "prerouting priority mangle", (_own_reply(state),)), _own_connections(state)


def _own_reply(state: HostState) -> str:
    return f"ct mark {state.mark:#x} meta mark set {state.mark:#x}"


def _spoofing(state: HostState) -> Chain:
    """Drop packets from the LAN that are addressed to the tunnel's address (CVE-2019-14899)."""
    rules = []
    for word, version in (("ip", 4), ("ip6", 6)):
        addresses = [str(item.ip) for item in state.interfaces() if item.version == version]
        if addresses:
            matched = f'iifname != "{state.tun}" {word} daddr {{ {", ".join(addresses)} }}'
            rules.append(f"{matched} fib saddr type != local drop")
    return Chain("spoofing", "prerouting priority raw", tuple(rules))


def _replies(state: HostState) -> Chain:
    """Set our mark on incoming packets whose route or source must be looked up as in `main`."""
    rules = [_own_reply(state)]
    if state.intercept_dns and not state.only:
        # A query to this host that it forwards to a container's DNS server is no query of this host.
        rules.append(
            f"iifname != {_devices(state.tun, *state.gateway)} "
            f"meta l4proto {{ tcp, udp }} th dport {DNS_PORT} fib daddr type local "
            f"meta mark set {state.mark:#x}"
        )
    return Chain("replies", "prerouting priority mangle", tuple(rules))


def _own_connections(state: HostState) -> Chain:
    """Note in conntrack which connections are ours, so that their replies are recognized."""
    marks = f"{{ {state.mark:#x}, {state.excluded_mark:#x} }}"
    rule = f"meta mark {marks} ct mark set {state.mark:#x}"
    return Chain("own_connections", "postrouting priority mangle", (rule,))


def _dns_guard(state: HostState, hook: str, inbound_marks: Sequence[int]) -> Chain:
    """Reject DNS outside the tunnel: a socket bound to a device evades every routing rule."""
    whose = f"!= {marks(state.mark, *inbound_marks)}"
    if state.only:
        whose = f"== {state.only_mark:#x}"
    rule = (
        f'meta mark {whose} oifname != {{ "lo", "{state.tun}" }} meta l4proto {{ tcp, udp }} '
        f"th dport {DNS_PORT} reject"
    )
    return Chain(f"dns_{hook}", f"{hook} priority filter", (rule,))


def _only_guard(state: HostState) -> Chain:
    """Reject packets that must use the tunnel but took another path (a socket bound to a device)."""
    mark = f"meta mark {state.only_mark:#x}"
    rules = [f"{mark} oifname {_devices('lo', state.tun)} accept"]
    outside = (*state.exclude, *(LAN_NETWORKS if state.lan else ()))
    for word, version in (("ip", 4), ("ip6", 6)):
        networks = [text for text in outside if (":" in text) == (version == 6)]
        rules += [f"{mark} {word} daddr {text} accept" for text in networks]
    return Chain("only_output", "output priority filter", (*rules, f"{mark} reject"))


def _only_dns(state: HostState) -> list[Chain]:
    """Redirect DNS of chosen programs to the tunnel's resolver: a resolver of this host would ask outside."""
    if not state.intercept_dns:
        return []
    question = f"meta mark {state.only_mark:#x} meta l4proto {{ tcp, udp }} th dport {DNS_PORT}"
    rules = [f"{question} {rule}" for rule in _to_resolver(state, "oifname lo")]
    source = f'meta mark {state.only_mark:#x} oifname "{state.tun}" ip saddr 127.0.0.0/8 masquerade'
    return [
        Chain("only_dns", "output priority -100", tuple(rules), type="nat"),
        Chain("only_source", "postrouting priority srcnat", (source,), type="nat"),
    ]


def _gateway_guard(state: HostState, inbound_marks: Sequence[int]) -> Chain:
    """Let hosts behind this one reach the tunnel and each other. Elsewhere they may only answer."""
    devices = _devices(*state.gateway)
    allowed = _devices(state.tun, *state.gateway)
    others = f"meta mark != {marks(*inbound_marks)} " if inbound_marks else ""
    rule = f"{others}iifname {devices} oifname != {allowed} reject"
    return Chain("gateway_forward", "forward priority filter", (rule,))


def _gateway_dns(state: HostState) -> list[Chain]:
    """Redirect DNS of the hosts behind this one, whatever resolver they ask, to the tunnel's resolver."""
    if not state.intercept_dns:
        return []
    question = f"iifname {_devices(*state.gateway)} meta l4proto {{ tcp, udp }} th dport {DNS_PORT}"
    rules = [f"{question} {rule}" for rule in _to_resolver(state, "")]
    return [Chain("gateway_dns", "prerouting priority dstnat", tuple(rules), type="nat")]


def _to_resolver(state: HostState, condition: str) -> list[str]:
    found = []
    for word, version in (("ip", 4), ("ip6", 6)):
        servers = [text for text in state.resolvers if (":" in text) == (version == 6)]
        if servers and (version == 4 or state.ipv6):
            server = servers[0] if version == 4 else f"[{servers[0]}]"
            match = f"meta nfproto {'ipv4' if version == 4 else 'ipv6'} {condition}".strip()
            found.append(f"{match} dnat {word} to {server}")
    return found


def _devices(*names: str) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in dict.fromkeys(names)) + " }"


def marks(*numbers: int) -> str:
    """Return a set of marks in nft's notation."""
    return "{ " + ", ".join(f"{number:#x}" for number in numbers) + " }"


def render(wanted: Ruleset) -> str:
    """Return the text for `nft -f`. It replaces the whole table in one transaction."""
    lines = [f"add table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{"]
    for named in wanted.sets:
        lines.append(f"\t{named.kind} {named.name} {{")
        lines += [f"\t\t{line}" for line in named.lines]
        lines.append("\t}")
    for chain in wanted.chains:
        lines.append(f"\tchain {chain.name} {{")
        if chain.hook:
            lines.append(f"\t\ttype {chain.type} hook {chain.hook}; policy {chain.policy};")
        lines += [f"\t\t{rule}" for rule in chain.rules]
        lines.append("\t}")
    return "\n".join([*lines, "}", ""])


def find_program() -> str | None:
    """Return the path of nft; None if it is not installed."""
    return _NFT.find()


def replace(text: str) -> None:
    """Install the rendered table. Raises HostError if nft is missing or refuses it."""
    result = _NFT.run(["-f", "-"], text=text, timeout=NFT_TIMEOUT)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[0]
        raise HostError(
            f"nft refused Half-Tunnel's table, so this kernel may lack a part of nftables: {reason}"
        )


def accepts(rule: str) -> bool:
    """Return whether nft and this kernel support ``rule`` in an output chain. Nothing is changed."""
    chain = f"chain try {{\n type filter hook output priority filter\n {rule}\n }}\n"
    text = f"table inet halftunnel_try {{\n {chain} }}\n"
    return _NFT.run(["--check", "-f", "-"], text=text, timeout=NFT_TIMEOUT).returncode == 0


def listing() -> str | None:
    """Return the table in the kernel as nft lists it; None if there is none.

    Counters and the elements of named sets are left out, because they change without us.
    """
    result = _NFT.run(["--stateless", "--terse", "list", "table", *TABLE.split()], timeout=NFT_TIMEOUT)
    return None if result.returncode else result.stdout


def remove() -> None:
    """Remove the table if it exists. Do nothing on a host without nft."""
    if find_program() is not None and listing() is not None:
        _NFT.run(["delete", "table", *TABLE.split()], timeout=NFT_TIMEOUT)
