"""The steps that bring up a tunnel on a host, in order. Each is in the journal before it is taken.

The steps up to the routes are recorded in one write: from then on the first packet may enter the tunnel, and
each write waits for the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.host_state import HostState
from halftunnel_vpn.host.kernel import nft, route_table
from halftunnel_vpn.host.kernel.cgroups import EXCLUDED, ONLY, ProgramLists
from halftunnel_vpn.host.kernel.desired import Desired, addresses_of, routing_of
from halftunnel_vpn.host.kernel.netlink import Link
from halftunnel_vpn.host.kernel.port import KernelPort, NetlinkPort
from halftunnel_vpn.host.kernel.routes import Uplink
from halftunnel_vpn.host.kernel.sysctls import SOURCE_MARK
from halftunnel_vpn.host.record.journal import Journal
from halftunnel_vpn.host.resolver.step import ResolverStep

DEVICE: Final = "device"
NFT: Final = "nft"
ROUTING: Final = "routing"
SETTING: Final = "sysctl"
PROGRAMS: Final = "programs"
FORWARDING: Final = "forwarding"


class TunnelSteps:
    """Takes, compares and repeats the steps. Calls raise HostError. Only ``Host`` uses it."""

    def __init__(self, kernel: KernelPort, resolver: ResolverStep) -> None:
        self.table: tuple[str, str | None] | None = None
        """Our table as it was installed, and its listing at that time. A journal may be out of date."""
        self._setting_refused = False
        """Whether the kernel did not let us make the setting, as in a container: then nobody can mend it."""
        self._kernel = kernel
        self._resolver = resolver

    def apply(self, journal: Journal, desired: Desired, *, original: str) -> list[str]:
        """Take every step that differs; return warnings. ``original``: the setting before any change."""
        state = journal.state = _tunnel_of(desired)
        sysctls = self._kernel.sysctls
        warnings: list[str | None] = []
        journal.record_all(self._up_to_routes(journal, original))
        warnings += [sysctls.write(*setting) for setting in sysctls.of_device(state.tun).items()]
        uplinks = self._kernel.netlink(lambda netlink: self._set_device(netlink, state))
        self.lists(state).resume()
        installed = self._install_table(journal, desired, uplinks)
        warnings.append(self._make_setting())
        self._kernel.netlink(lambda netlink: self._set_routing(netlink, state, uplinks))
        if installed is not None:
            journal.steps[NFT] = self._read_back(installed)  # written with the steps that follow
        warnings += self._apply_forwarding(journal, state)
        warnings.append(self._resolver.apply(journal, state))
        journal.save()
        return [warning for warning in warnings if warning is not None]

    def mend(self, journal: Journal, desired: Desired) -> None:
        """Restore the table first, then the device, the setting and the routes."""
        state = _tunnel_of(desired)
        self.apply_table(journal, desired)
        uplinks = self._kernel.netlink(lambda netlink: self._set_device(netlink, state))
        self._make_setting()
        self._kernel.netlink(lambda netlink: self._set_routing(netlink, state, uplinks))

    def differences(self, journal: Journal | None, desired: Desired) -> list[str]:
        """Return how the kernel differs from the desired state, a sentence each."""
        state = _tunnel_of(desired)
        steps = {} if journal is None else journal.steps
        found = self._kernel.netlink(lambda netlink: self._link_differences(netlink, state))
        listing = self._kernel.table()
        if listing is None:
            found.append(f"The nft table {nft.TABLE} is missing.")
        elif self._known_table(steps) != (nft.render(desired.table(self._kernel)), listing):
            found.append(f"The nft table {nft.TABLE} was changed.")
        is_made = self._setting_refused or self._kernel.sysctls.read(SOURCE_MARK) == "1"
        if SETTING in steps and not is_made:
            found.append("The setting net.ipv4.conf.all.src_valid_mark is not 1.")
        return found

    def apply_table(self, journal: Journal, desired: Desired) -> None:
        """Install our table. A changed listing is recorded afterwards."""
        if NFT not in journal.steps:
            journal.record(NFT)
        installed = self._install_table(journal, desired)
        if installed is not None:
            journal.record(NFT, **self._read_back(installed))

    @staticmethod
    def lists(state: HostState) -> ProgramLists:
        """Return the program lists of a tunnel."""
        return ProgramLists({EXCLUDED: state.excluded_mark, ONLY: state.only_mark})

    @staticmethod
    def _up_to_routes(journal: Journal, original: str) -> dict[str, dict[str, Any]]:
        """Return what the journal must say before the first step. The undoing of each may find nothing."""
        known = journal.steps
        steps: dict[str, dict[str, Any]] = {name: known.get(name, {}) for name in (DEVICE, NFT, ROUTING)}
        if SETTING not in known and original != "1":
            steps[SETTING] = {"original": original}
        return steps

    def _install_table(
        self, journal: Journal, desired: Desired, uplinks: Sequence[Uplink] | None = None
    ) -> str | None:
        """Install our table and return its text; None if it is there already."""
        wanted = nft.render(desired.table(self._kernel, uplinks))
        text, listing = self._known_table(journal.steps)
        if text == wanted and listing == self._kernel.table():
            return None
        self._kernel.replace_table(wanted)
        return wanted

    def _read_back(self, installed: str) -> dict[str, Any]:
        """Return what the journal keeps of the table that was just installed: our text and nft's listing."""
        self.table = installed, self._kernel.table()
        return {"wanted": installed, "listing": self.table[1]}

    def _apply_forwarding(self, journal: Journal, state: HostState) -> list[str | None]:
        if not state.gateway:
            return []
        sysctls = self._kernel.sysctls
        wanted = sysctls.for_gateway()
        if FORWARDING not in journal.steps:
            # All of IPv6 first: this also sets the value of each device, which then gets its own.
            originals = {key: sysctls.read(key) for key in wanted} | sysctls.forwarding_of_devices()
            journal.record(FORWARDING, originals={key: value for key, value in originals.items() if value})
        return [sysctls.write(*setting) for setting in wanted.items()]

    def _make_setting(self) -> str | None:
        problem = self._kernel.sysctls.write(SOURCE_MARK, "1")
        self._setting_refused = problem is not None
        return problem

    def _set_device(self, netlink: NetlinkPort, state: HostState) -> tuple[Uplink, ...]:
        """Bring up the device with its addresses. Return the uplinks whose replies are kept apart."""
        link = _link_of(netlink, state)
        wanted = addresses_of(state, self._kernel)
        # Remove first: IPv6 does not accept one address with two prefix lengths.
        for address in sorted(link.addresses - wanted):
            netlink.remove_address(link.index, address)
        for address in sorted(wanted - link.addresses):
            netlink.add_address(link.index, address)
        if link.mtu != state.mtu:
            netlink.set_mtu(link.index, state.mtu)
        if not link.up:
            netlink.set_up(link.index, up=True)
        return route_table.uplinks_of(netlink, state)

    def _set_routing(self, netlink: NetlinkPort, state: HostState, uplinks: tuple[Uplink, ...]) -> None:
        link = _link_of(netlink, state)
        route_table.put(netlink, *routing_of(state, self._kernel, uplinks), link.index)

    def _known_table(self, steps: dict[str, dict[str, Any]]) -> tuple[str | None, str | None]:
        """Return the table as it should be: our text, and nft's listing of it."""
        step = steps.get(NFT, {})
        return self.table or (step.get("wanted"), step.get("listing"))

    def _link_differences(self, netlink: NetlinkPort, state: HostState) -> list[str]:
        link = netlink.link(state.tun)
        if link is None:
            return [f"The device {state.tun} is missing."]
        found = []
        if not link.up:
            found.append(f"The device {state.tun} is down.")
        if link.mtu != state.mtu:
            found.append(f"The device {state.tun} has the MTU {link.mtu}, not {state.mtu}.")
        wanted = addresses_of(state, self._kernel)
        found += sorted(f"The address {item} is missing." for item in wanted - link.addresses)
        found += sorted(f"The address {item} should not be there." for item in link.addresses - wanted)
        uplinks = route_table.uplinks_of(netlink, state)
        return found + route_table.differences(netlink, *routing_of(state, self._kernel, uplinks))


def _tunnel_of(desired: Desired) -> HostState:
    assert desired.tunnel is not None
    return desired.tunnel


def _link_of(netlink: NetlinkPort, state: HostState) -> Link:
    link = netlink.link(state.tun)
    if link is None:
        raise HostError(f"The device {state.tun} is not there: open it before its state is applied.")
    return link


def clear_device(netlink: NetlinkPort, state: HostState) -> None:
    """Remove the tunnel's addresses from its device, and set it down."""
    link = netlink.link(state.tun)
    if link is not None:
        for address in sorted(link.addresses & {str(item) for item in state.interfaces()}):
            netlink.remove_address(link.index, address)
        netlink.set_up(link.index, up=False)
