"""The one owner of this host's nft table, rules, routes, resolver configuration and settings.

:meth:`Host.apply` brings the host into the desired state from any state. Each step is written to disk before
it is taken: to the journal (how to undo a tunnel) or to the policy file (what must hold without a tunnel).
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.host_state import HostState
from halftunnel_vpn.host.kernel import nft, route_table
from halftunnel_vpn.host.kernel.cgroups import ONLY, ProgramLists
from halftunnel_vpn.host.kernel.desired import Desired
from halftunnel_vpn.host.kernel.port import KernelPort, RealKernel
from halftunnel_vpn.host.kernel.sysctls import SOURCE_MARK
from halftunnel_vpn.host.kernel.traffic_policy import TrafficPolicy
from halftunnel_vpn.host.record.journal import DEFAULT_STATE_DIR, SUFFIX, Journal, path_of
from halftunnel_vpn.host.record.policy_file import PolicyFile
from halftunnel_vpn.host.resolver.resolv_conf_file import RESOLV_CONF
from halftunnel_vpn.host.resolver.step import ResolverStep, Takeover
from halftunnel_vpn.host.tunnel_steps import FORWARDING, PROGRAMS, SETTING, TunnelSteps, clear_device

CHANGED_POLICY: Final = "The rules of the kill switch were changed."


class Host:
    """The host as seen from this process and network namespace. Calls must not overlap.

    A call blocks for some tens of milliseconds, so an event loop must run it in a thread. Each call raises
    HostError with one sentence. Each network namespace needs its own ``state_dir``. ``kernel`` is for tests.
    """

    def __init__(
        self,
        state_dir: Path = DEFAULT_STATE_DIR,
        *,
        resolv_conf: Path = RESOLV_CONF,
        kernel: KernelPort | None = None,
    ) -> None:
        self.desired = Desired()
        """The last argument of :meth:`apply`, or the state to which a failed call has fallen back."""
        self.is_applied = False
        """Whether the last :meth:`apply` succeeded."""
        # Holds the journal and the policy file.
        self.state_dir = state_dir
        self._kernel: KernelPort = kernel or RealKernel()
        # The policy that must hold without a tunnel.
        self._file = PolicyFile(state_dir)
        # The host's resolver configuration.
        self._resolver = ResolverStep(resolv_conf)
        # The steps that bring a tunnel up.
        self._steps = TunnelSteps(self._kernel, self._resolver)
        self._device: str | None = None
        """The device of the tunnel that :meth:`apply` has brought up. Undone even without its device."""
        self._setting_problem: str | None = None
        """Why a strict reverse-path filter may drop replies; None if it does not."""

    # --- apply -----------------------------------------------------------------------------------

    def apply(self, desired: Desired) -> list[str]:
        """Bring the host into the desired state; change only what differs. Return warnings, a sentence each.

        The device of the tunnel must be open. A new table replaces the old one in one transaction, without a
        gap. If the first apply of a tunnel fails, only the policy is left in force. If a later one fails, the
        steps taken so far stay. Raises HostError. If a policy without a tunnel cannot be saved, the policy in
        force before is kept.
        """
        before, self.desired, self.is_applied = self.desired, desired, False
        if desired.tunnel is not None:
            warnings = self._apply_tunnel(desired.tunnel, desired.policy)
        else:
            warnings = []
            self._apply_policy(desired.policy, before)
        self.is_applied = True
        return warnings

    def _apply_tunnel(self, state: HostState, policy: TrafficPolicy | None) -> list[str]:
        journal = self._journal_of(state)
        if journal is not None and not journal.is_current:
            raise HostError(
                f"A tunnel that was killed left {journal.path}: clean up before a new one starts."
            )
        if not self._kernel.has_device(state.tun):
            raise HostError(f"The device {state.tun} is not there: open it before its state is applied.")
        first = journal is None
        self._device = state.tun
        journal = journal or Journal.new(self.state_dir, state)
        original = self._original_setting(journal)
        failure: HostError | None = None
        try:
            try:
                self._remember(policy, original)
            except HostError as error:
                if first:
                    raise
                failure = error  # the policy is enforced even if it cannot be saved
            warnings = self._steps.apply(journal, self.desired, original=original)
        except BaseException:
            if first:
                self.desired = Desired(None, policy)
                self._apply_policy(self.desired.policy, Desired())
            raise
        if failure is not None:
            raise failure
        return warnings

    def _remember(self, policy: TrafficPolicy | None, original: str) -> None:
        if policy is None:
            self._file.remove()
        else:
            self._file.save(policy, original=original)

    def _apply_policy(self, policy: TrafficPolicy | None, before: Desired) -> None:
        """Undo the tunnel. Enforce the policy before that; without one, remove all of ours after it."""
        failure: HostError | None = None
        live = self._live_tunnels()
        if policy is not None:
            try:
                self._file.save(policy, original=self._original_setting(live[0] if live else None))
            except HostError as error:
                if not live:
                    self.desired = before
                    if before.tunnel is None and before.policy is not None:
                        self._enforce(before.policy)
                    raise
                failure = error  # a full disk must not keep a tunnel up
            self._enforce(policy)
        for journal in live:
            try:
                self._undo(journal, policy)
            except HostError as error:
                failure = failure or error
        if policy is None:
            self._lift()
        if failure is not None:
            raise failure

    def _enforce(self, policy: TrafficPolicy) -> None:
        """Make our table and our rules those of the policy without a tunnel, and verify the table."""
        desired = Desired(None, policy)
        if self._holds(desired):
            return
        sysctls = self._kernel.sysctls
        self._setting_problem = sysctls.write(SOURCE_MARK, "1")
        wanted = desired.table(self._kernel)
        rendered = nft.render(wanted)
        self._kernel.replace_table(rendered)
        self._kernel.netlink(lambda netlink: route_table.lock(netlink, policy, sysctls))
        listing = self._kernel.table()
        self._steps.table = (rendered, listing)
        missing = [chain.name for chain in wanted.chains if f"chain {chain.name} " not in (listing or "")]
        if missing:
            self._steps.table = None
            raise HostError(
                f"The kernel does not show the nft chains {', '.join(missing)} that nft installed: check "
                "what else changes nftables on this host."
            )

    def _holds(self, desired: Desired) -> bool:
        """Return whether our table and our rules are still as :meth:`_enforce` made them for this policy."""
        policy, sysctls = desired.policy, self._kernel.sysctls
        if policy is None or self._steps.table is None:
            return False
        if self._setting_problem is None and sysctls.read(SOURCE_MARK) != "1":
            return False
        rendered = nft.render(desired.table(self._kernel))
        return self._steps.table == (rendered, self._kernel.table()) and self._kernel.netlink(
            lambda netlink: route_table.is_locked(netlink, policy, sysctls)
        )

    def _lift(self) -> None:
        """Remove all our rules and the table, recorded or not. Then remove the policy file."""
        places = route_table.lock_state(self._policy_in_place())
        self._kernel.netlink(lambda netlink: route_table.remove(netlink, places))
        self._kernel.remove_table()
        self._steps.table = None
        original, sysctls = self._file.original_setting(), self._kernel.sysctls
        if original not in (None, "1") and sysctls.read(SOURCE_MARK) == "1":
            sysctls.write(SOURCE_MARK, original or "0")
        self._file.remove()

    # --- differences, mend, recover ---------------------------------------------------------------

    def differences(self) -> list[str]:
        """Return how the host differs from the desired state, a sentence each; empty if it does not."""
        tunnel = self.desired.tunnel
        if tunnel is None:
            return self._kernel_differences()
        found = self._resolver.difference(self._journal_of(tunnel), tunnel)
        return self._kernel_differences() + ([] if found is None else [found])

    def mend(self) -> list[str]:
        """Restore the kernel's part of the desired state; return the differences found before.

        The resolver is not restored: another program may own it.
        """
        found = self._kernel_differences()
        if found and self.desired.tunnel is not None:
            journal = self._journal_of(self.desired.tunnel)
            if journal is None:
                raise HostError("The tunnel's journal is gone: bring the tunnel down and up again.")
            self._steps.mend(journal, self.desired)
        elif found and self.desired.policy is not None:
            self._enforce(self.desired.policy)
        return found

    def recover(self, policy: TrafficPolicy | None) -> list[str]:
        """Undo what killed tunnels left; return the names of their devices.

        ``policy`` is enforced before that. A tunnel whose device exists is alive and is not touched.
        """
        recovered = []
        for path in self._journals():
            journal = Journal.load(path)
            if journal is None or self._is_live(journal):
                continue
            if journal.is_current and policy is not None and self.desired.tunnel is None:
                self._enforce(Desired(None, policy).policy or policy)
            self._undo(journal, policy)
            recovered.append(journal.state.tun)
        return recovered

    def remembered(self) -> TrafficPolicy | None:
        """Return the saved policy, which must hold without a tunnel. Raises HostError for a corrupt file."""
        return self._file.load()

    def restore(self, policy: TrafficPolicy) -> None:
        """Enforce ``policy`` without saving it. Used at boot, when the policy file may be corrupt."""
        self.desired = Desired(None, policy)
        self._enforce(self.desired.policy or policy)

    def has_traces(self) -> bool:
        """Return whether a policy file, our table or any rule of ours exists, whichever process made it."""
        return (
            self._file.path.exists()
            or (nft.find_program() is not None and self._kernel.table() is not None)
            or bool(self._kernel.netlink(lambda netlink: netlink.rules()))
        )

    def _kernel_differences(self) -> list[str]:
        desired = self.desired
        if desired.tunnel is not None:
            return self._steps.differences(self._journal_of(desired.tunnel), desired)
        return [] if desired.policy is None or self._holds(desired) else [CHANGED_POLICY]

    def _undo(self, journal: Journal, policy: TrafficPolicy | None) -> None:
        """Undo what one tunnel did. Keep the table and the rules if other ones have replaced them."""
        problem = self._resolver.undo(journal, journal.state)
        if journal.is_current:
            if policy is None and self.desired.tunnel is None:
                self._kernel.netlink(lambda netlink: route_table.remove(netlink, journal.state))
            self._kernel.netlink(lambda netlink: clear_device(netlink, journal.state))
            if policy is None and self.desired.tunnel is None:
                self._kernel.remove_table()
                self._steps.table = None
            ProgramLists({}).remove()
            sysctls = self._kernel.sysctls
            for key, value in journal.steps.get(FORWARDING, {}).get("originals", {}).items():
                sysctls.write(key, value)
            if SETTING in journal.steps and policy is None and sysctls.read(SOURCE_MARK) == "1":
                sysctls.write(SOURCE_MARK, journal.steps[SETTING]["original"])
        if problem is not None:
            raise HostError(problem)
        journal.discard()

    # --- the resolver, and chosen programs ---------------------------------------------------------

    def adopt_program(self, pid: int, programs: str) -> None:
        """Make a process and its future children stay outside (``excluded``) or inside (``only``)."""
        state = self.desired.tunnel
        if state is None:
            raise HostError("The tunnel is not up: run `htvpn up` first.")
        if programs == ONLY and not state.only:
            raise HostError(
                "All traffic uses the tunnel already: set programs to only in [routes] of the profile if "
                "only chosen programs must use it."
            )
        journal = self._journal_of(state)
        if journal is None:
            raise HostError("The tunnel is not up: run `htvpn up` first.")
        journal.record(PROGRAMS)
        lists = self._steps.lists(state)
        lists.prepare(programs)
        self._steps.apply_table(journal, self.desired)
        lists.adopt(pid, programs)

    @property
    def resolver_kind(self) -> str | None:
        """The KIND of the resolver backend that is in force; None if there is none."""
        return self._resolver.kind

    def takeover(self) -> Takeover | None:
        """Return which program has changed the host's resolver configuration; None if it is unchanged."""
        state = self.desired.tunnel
        return None if state is None else self._resolver.takeover(self._journal_of(state), state)

    def mend_resolver(self) -> str | None:
        """Point the host to the tunnel's servers again; return a sentence if that fails."""
        state = self.desired.tunnel
        journal = None if state is None else self._journal_of(state)
        return None if state is None or journal is None else self._resolver.apply(journal, state)

    def own_servers(self) -> tuple[str, ...]:
        """Return the resolvers that the host would ask without the tunnel, as far as known."""
        state = self.desired.tunnel or HostState(addresses=())
        return self._resolver.own_servers(self._journal_of(state), state)

    def watched_file(self) -> Path | None:
        """Return the file in which a takeover of the resolver shows first; None if there is none."""
        state = self.desired.tunnel
        return None if state is None else self._resolver.watched_file(self._journal_of(state))

    # --- records -----------------------------------------------------------------------------------

    def _journal_of(self, state: HostState) -> Journal | None:
        return Journal.load(path_of(self.state_dir, state.tun))

    def _journals(self) -> list[Path]:
        return sorted(self.state_dir.glob(f"*{SUFFIX}"))

    def _live_tunnels(self) -> list[Journal]:
        """Return the journals of living tunnels. A journal that cannot be read is left to :meth:`recover`."""
        found = []
        for path in self._journals():
            with contextlib.suppress(HostError):
                journal = Journal.load(path)
                if journal is not None and self._is_live(journal):
                    found.append(journal)
        return found

    def _is_live(self, journal: Journal) -> bool:
        device = journal.state.tun
        return journal.is_current and (device == self._device or self._kernel.has_device(device))

    def _original_setting(self, journal: Journal | None) -> str:
        """Return the value of net.ipv4.conf.all.src_valid_mark from before our first change."""
        step = {} if journal is None else journal.steps.get(SETTING, {})
        current = self._kernel.sysctls.read(SOURCE_MARK)
        return self._file.original_setting() or str(step.get("original") or current or "1")

    def _policy_in_place(self) -> TrafficPolicy:
        """Return the policy whose marks and tables our rules use; the default one if the file is corrupt."""
        try:
            return self._file.load() or TrafficPolicy()
        except HostError:
            return TrafficPolicy()
