"""The wanted state made real, checked, and undone; each step is in the journal before it is taken."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host import nft, routing, ruleset, sysctls
from halftunnel_vpn.host.firewall import TrafficPolicy
from halftunnel_vpn.host.journal import DEFAULT_STATE_DIR, SUFFIX, Journal, path_of
from halftunnel_vpn.host.netlink import Kernel, Link, with_kernel
from halftunnel_vpn.host.nft import Ruleset
from halftunnel_vpn.host.preflight import device_exists
from halftunnel_vpn.host.programs import EXCLUDED, ONLY, ProgramLists
from halftunnel_vpn.host.resolver.resolv_conf_file import RESOLV_CONF
from halftunnel_vpn.host.resolver.step import ResolverStep, Takeover
from halftunnel_vpn.host.routes import Route, Rule, wanted_routes, wanted_rules
from halftunnel_vpn.host.state import HostState

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

DEVICE: Final = "device"
NFT: Final = "nft"
ROUTING: Final = "routing"
SYSCTL: Final = "sysctl"
PROGRAMS: Final = "programs"
FORWARDING: Final = "forwarding"


def _one_at_a_time(method: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Threads take turns: what one reads in the journal, no other changes meanwhile."""

    @functools.wraps(method)
    def locked(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with args[0]._lock:  # type: ignore[attr-defined]
            return method(*args, **kwargs)

    return locked


class HostNetwork:
    """One tunnel's changes to the host that this process (and thread) sees.

    The calls block for some tens of milliseconds; in an event loop, give them to a thread. Each raises
    HostError with one sentence. ``state_dir`` must be one of this network namespace's own. ``policy`` is what
    may leave outside the tunnel while that is up (None: whatever finds a way), ``after`` what may once
    :meth:`cleanup` has begun: the table changes from the one to the other in one transaction.
    """

    def __init__(
        self,
        state: HostState,
        state_dir: Path = DEFAULT_STATE_DIR,
        *,
        resolv_conf: Path = RESOLV_CONF,
        policy: TrafficPolicy | None = None,
        after: TrafficPolicy | None = None,
    ) -> None:
        self.state = state
        self.policy = policy
        self.after = after
        self._state_dir = state_dir
        self._resolver = ResolverStep(resolv_conf)
        self._lock = threading.RLock()
        self._table: tuple[str, str | None] | None = None
        """The table as it was put in place, and as nft listed it then; the journal may be out of date."""

    @_one_at_a_time
    def apply(self) -> list[str]:
        """Make the host what the state says; changes only what differs. Returns warnings, a sentence each.

        The device must be open. If the first apply fails, what it did is undone; a later one that fails
        leaves the host as far as it came.
        """
        journal = self._journal()
        if journal is not None and not journal.here:
            raise HostError(
                f"A tunnel that was killed left {journal.path}: clean up before a new one starts."
            )
        if not device_exists(self.state.tun):
            raise HostError(f"The device {self.state.tun} is not there: open it before its state is applied.")
        first = journal is None
        if journal is None:
            journal = Journal.new(self._state_dir, self.state)
        journal.state = self.state
        try:
            return self._apply(journal)
        except BaseException:
            if first:
                self.cleanup()
            raise

    @_one_at_a_time
    def verify(self) -> list[str]:
        """How the host differs from the state, a sentence each; an empty list when it does not."""
        found = self._resolver.difference(self._journal(), self.state)
        return self.kernel_differences() + ([] if found is None else [found])

    @_one_at_a_time
    def kernel_differences(self) -> list[str]:
        """As :meth:`verify`, but for the resolver, which others may rule by right."""
        journal = self._journal()
        steps = {} if journal is None else journal.steps
        differences = with_kernel(self._kernel_differences)
        listing = nft.listing()
        if listing is None:
            differences.append(f"The nft table {nft.TABLE} is missing.")
        elif self._known_table(steps) != (nft.render(self._wanted_table()), listing):
            differences.append(f"The nft table {nft.TABLE} was changed.")
        if SYSCTL in steps and sysctls.read(sysctls.SOURCE_MARK) != "1":
            differences.append("The setting net.ipv4.conf.all.src_valid_mark is not 1.")
        return differences

    @_one_at_a_time
    def mend_kernel(self) -> None:
        """Put the table, the device, the setting and the routes back as the state says: the table first."""
        journal = self._journal()
        if journal is None:
            raise HostError("The tunnel's journal is gone: bring the tunnel down and up again.")
        self._apply_nft(journal)
        with_kernel(self._set_device)
        sysctls.write(sysctls.SOURCE_MARK, "1")
        with_kernel(self._set_routing)

    @_one_at_a_time
    def adopt_program(self, pid: int, programs: str) -> None:
        """Have a process, and its children from now on, go outside (``excluded``) or inside (``only``)."""
        if programs == ONLY and not self.state.only:
            raise HostError(
                'Everything goes through the tunnel already: with [routes] programs = "only" in the profile '
                "nothing but chosen programs does."
            )
        journal = self._journal()
        if journal is None:
            raise HostError("The tunnel is not up: connect first.")
        journal.record(PROGRAMS)
        self._lists().prepare(programs)
        self._apply_nft(journal)
        self._lists().adopt(pid, programs)

    @property
    def resolver_kind(self) -> str | None:
        """What points this host to the tunnel's resolvers: a backend's KIND, None while nothing does."""
        return self._resolver.kind

    @_one_at_a_time
    def takeover(self) -> Takeover | None:
        """Whether somebody else has changed the host's resolver configuration; None when it is as applied."""
        return self._resolver.takeover(self._journal(), self.state)

    @_one_at_a_time
    def mend_resolver(self) -> str | None:
        """Point the host to the tunnel's servers again; a sentence when that is not possible."""
        journal = self._journal()
        return None if journal is None else self._resolver.apply(journal, self.state)

    @_one_at_a_time
    def own_servers(self) -> tuple[str, ...]:
        """The resolvers the host would ask without the tunnel, as far as it tells."""
        return self._resolver.own_servers(self._journal(), self.state)

    @_one_at_a_time
    def watched_file(self) -> Path | None:
        """The file in which a takeover of the resolver configuration shows first, None when there is none."""
        return self._resolver.watched_file(self._journal())

    @_one_at_a_time
    def cleanup(self) -> None:
        """Undo everything; needs no live tunnel; repeatable. HostError when a file cannot be put back."""
        journal = self._journal()
        if journal is None:
            journal = Journal.new(self._state_dir, self.state)
        if journal.here and self.after is not None:
            uplinks = ruleset.uplinks_now(routing.lock_state(self.after))
            ruleset.replace(nft.render(ruleset.alone(self.after, uplinks)))
        problem = self._resolver.undo(journal, self.state)
        if journal.here:
            with_kernel(self._remove_from_kernel)
            if self.after is None:
                nft.remove()
            ProgramLists({}).remove()
            for key, value in journal.steps.get(FORWARDING, {}).get("originals", {}).items():
                sysctls.write(key, value)
            if SYSCTL in journal.steps and sysctls.read(sysctls.SOURCE_MARK) == "1":
                sysctls.write(sysctls.SOURCE_MARK, journal.steps[SYSCTL]["original"])
        if problem is not None:
            raise HostError(problem)
        journal.discard()

    @staticmethod
    def cleanup_leftovers(
        state_dir: Path = DEFAULT_STATE_DIR, *, after: TrafficPolicy | None = None
    ) -> list[str]:
        """Undo what killed tunnels left; call it before a device is opened. Returns their device names.

        A tunnel whose device is still there lives, and is left alone. ``after`` as above.
        """
        cleaned = []
        for path in sorted(state_dir.glob(f"*{SUFFIX}")):
            journal = Journal.load(path)
            if journal is None or (journal.here and device_exists(journal.state.tun)):
                continue
            HostNetwork(journal.state, state_dir, after=after).cleanup()
            cleaned.append(journal.state.tun)
        return cleaned

    # --- apply ------------------------------------------------------------------------------------

    def _apply(self, journal: Journal) -> list[str]:
        warnings: list[str | None] = []
        journal.record(DEVICE)
        warnings += [sysctls.write(*setting) for setting in sysctls.of_device(self.state.tun).items()]
        with_kernel(self._set_device)
        self._lists().resume()
        self._apply_nft(journal)
        original = sysctls.read(sysctls.SOURCE_MARK)
        if SYSCTL not in journal.steps and original != "1":
            journal.record(SYSCTL, original=original)
        warnings.append(sysctls.write(sysctls.SOURCE_MARK, "1"))
        journal.record(ROUTING)
        with_kernel(self._set_routing)
        warnings += self._apply_forwarding(journal)
        warnings.append(self._resolver.apply(journal, self.state))
        journal.save()
        return [warning for warning in warnings if warning is not None]

    def _lists(self) -> ProgramLists:
        return ProgramLists({EXCLUDED: self.state.excluded_mark, ONLY: self.state.only_mark})

    def _apply_forwarding(self, journal: Journal) -> list[str | None]:
        if not self.state.gateway:
            return []
        wanted = sysctls.for_gateway()
        if FORWARDING not in journal.steps:
            # all of IPv6 first: putting it back sets the devices' own, which then get theirs
            originals = {key: sysctls.read(key) for key in wanted} | sysctls.forwarding_of_devices()
            journal.record(FORWARDING, originals={key: value for key, value in originals.items() if value})
        return [sysctls.write(*setting) for setting in wanted.items()]

    def _set_device(self, kernel: Kernel) -> None:
        link = self._link(kernel)
        wanted = self._addresses()
        # Removal first: IPv6 does not take one address with two prefix lengths.
        for address in sorted(link.addresses - wanted):
            kernel.remove_address(link.index, address)
        for address in sorted(wanted - link.addresses):
            kernel.add_address(link.index, address)
        if link.mtu != self.state.mtu:
            kernel.set_link(link.index, mtu=self.state.mtu)
        if not link.up:
            kernel.set_link(link.index, state="up")

    def _set_routing(self, kernel: Kernel) -> None:
        link = self._link(kernel)
        routing.put(kernel, *self._wanted_routing(kernel), link.index)

    def _apply_nft(self, journal: Journal) -> None:
        """Have the kernel hold our table. What is put back is written down afterwards, if it has changed."""
        wanted = nft.render(self._wanted_table())
        if self._known_table(journal.steps) == (wanted, nft.listing()):
            return
        if NFT not in journal.steps:
            journal.record(NFT)
        ruleset.replace(wanted)
        self._table = wanted, nft.listing()
        journal.record(NFT, wanted=wanted, listing=self._table[1])

    def _known_table(self, steps: dict[str, dict[str, Any]]) -> tuple[str | None, str | None]:
        """The table as it should be: our text, and nft's listing of it."""
        step = steps.get(NFT, {})
        return self._table or (step.get("wanted"), step.get("listing"))

    def _wanted_table(self) -> Ruleset:
        return ruleset.with_tunnel(self.state, self.policy, ruleset.uplinks_now(self.state))

    # --- what differs -----------------------------------------------------------------------------

    def _journal(self) -> Journal | None:
        return Journal.load(path_of(self._state_dir, self.state.tun))

    def _kernel_differences(self, kernel: Kernel) -> list[str]:
        device = self.state.tun
        link = kernel.link(device)
        if link is None:
            return [f"The device {device} is missing."]
        found = []
        if not link.up:
            found.append(f"The device {device} is down.")
        if link.mtu != self.state.mtu:
            found.append(f"The device {device} has the MTU {link.mtu}, not {self.state.mtu}.")
        wanted = self._addresses()
        found += sorted(f"The address {item} is missing." for item in wanted - link.addresses)
        found += sorted(f"The address {item} should not be there." for item in link.addresses - wanted)
        return found + routing.differences(kernel, *self._wanted_routing(kernel))

    # --- undo -------------------------------------------------------------------------------------

    def _remove_from_kernel(self, kernel: Kernel) -> None:
        if self.after is None:
            routing.remove(kernel, self.state)
        else:
            routing.lock(kernel, self.after)
        link = kernel.link(self.state.tun)
        if link is not None:
            for address in sorted(link.addresses & {str(item) for item in self.state.interfaces()}):
                kernel.remove_address(link.index, address)
            kernel.set_link(link.index, state="down")

    # --- the wanted state, for this kernel --------------------------------------------------------

    def _tun_has_ipv6(self) -> bool:
        return sysctls.device_has_ipv6(self.state.tun)

    def _addresses(self) -> set[str]:
        return {str(item) for item in self.state.interfaces() if item.version == 4 or self._tun_has_ipv6()}

    def _wanted_routing(self, kernel: Kernel) -> tuple[list[Rule], list[Route]]:
        versions = routing.versions()
        uplinks = routing.uplinks_of(kernel, self.state)
        through_tun = [
            version for version in versions if version == 4 or (self.state.ipv6 and self._tun_has_ipv6())
        ]
        held = routing.held_versions(versions, through_tun)
        rules = wanted_rules(self.state, versions, uplinks=uplinks, held=held)
        return rules, wanted_routes(self.state, versions, through_tun=through_tun, held=held, uplinks=uplinks)

    def _link(self, kernel: Kernel) -> Link:
        link = kernel.link(self.state.tun)
        if link is None:
            raise HostError(f"The device {self.state.tun} is not there: open it before its state is applied.")
        return link
