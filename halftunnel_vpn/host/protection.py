"""The kill switch while no tunnel is up: our nft table with a policy alone, our rules over unreachable
routes, and a file that remembers it.

The file tells the early boot, the next start and a repair what is to be in place; it is written before
the rest is put there, and removed after that is gone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host import nft, routing, ruleset, sysctls
from halftunnel_vpn.host.firewall import TrafficPolicy
from halftunnel_vpn.host.journal import DEFAULT_STATE_DIR, write_atomically
from halftunnel_vpn.host.netlink import with_kernel
from halftunnel_vpn.host.nft import Ruleset
from halftunnel_vpn.storage.atomic_file import remove_file

FILE: Final = "protection.json"
_FORMAT: Final = 1
_SETTING: Final = "src_valid_mark"


class Protection:
    """What is in place between tunnels. Each call blocks for some milliseconds and may raise HostError."""

    def __init__(self, state_dir: Path = DEFAULT_STATE_DIR) -> None:
        self.path = state_dir / FILE
        self._held: tuple[TrafficPolicy, str, str] | None = None
        self._setting_problem: str | None = None
        """Why replies through a strict reverse-path filter may fail; None when they do not."""

    def put(self, policy: TrafficPolicy) -> None:
        """Remember the policy and have our table hold it and nothing else, in one transaction.

        One that is remembered already is put back without a write: a full disk does not hinder that.
        """
        self.remember(policy)
        self.restore(policy)

    def restore(self, policy: TrafficPolicy) -> None:
        """Have our table and our rules hold the policy, read back; what is remembered stays as it is."""
        self._setting_problem = sysctls.write(sysctls.SOURCE_MARK, "1")
        wanted = self._table(policy)
        ruleset.replace(nft.render(wanted))
        with_kernel(lambda kernel: routing.lock(kernel, policy))
        listing = nft.listing()
        missing = [chain.name for chain in wanted.chains if f"chain {chain.name} " not in (listing or "")]
        if missing:
            raise HostError(
                f"The kernel does not show the nft chains {', '.join(missing)} that it took: see what else "
                "changes nftables on this host."
            )
        self._held = (policy, nft.render(wanted), listing or "")

    def holds(self, policy: TrafficPolicy) -> bool:
        """Whether our table and our rules are as :meth:`restore` has left them with this policy."""
        if self._held is None or self._held[0] != policy:
            return False
        if self._setting_problem is None and sysctls.read(sysctls.SOURCE_MARK) != "1":
            return False
        return self._held == (policy, nft.render(self._table(policy)), nft.listing()) and with_kernel(
            lambda kernel: routing.is_locked(kernel, policy)
        )

    @staticmethod
    def _table(policy: TrafficPolicy) -> Ruleset:
        return ruleset.alone(policy, ruleset.uplinks_now(routing.lock_state(policy)))

    def is_in_place(self) -> bool:
        """Whether there is something to lift."""
        return self.path.exists() or self._held is not None

    def lift(self) -> None:
        """Remove the rules and the table, then forget the policy."""
        places = routing.lock_state(self._policy_in_place())
        with_kernel(lambda kernel: routing.remove(kernel, places))
        nft.remove()
        original = self._original_setting()
        if self.path.exists() and original != "1" and sysctls.read(sysctls.SOURCE_MARK) == "1":
            sysctls.write(sysctls.SOURCE_MARK, original)
        self._held = None
        self.forget()

    def remembered(self) -> TrafficPolicy | None:
        """The policy that is to be in place, None when there is none. HostError when the file is spoilt."""
        try:
            data = json.loads(self.path.read_bytes())
            if data["format"] != _FORMAT:
                raise ValueError(f"format {data['format']}")
            return TrafficPolicy.from_dict(data["policy"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise HostError(
                f"The file {self.path} cannot be read ({error}): see that nothing should be blocked on this "
                "host, then run `htvpn repair --lift`."
            ) from error

    def remember(self, policy: TrafficPolicy) -> None:
        """Put the policy on disk, atomically; HostError when the state directory cannot be written."""
        content = {"format": _FORMAT, "policy": policy.as_dict(), _SETTING: self._original_setting()}
        write_atomically(self.path, json.dumps(content, indent=1))

    def _original_setting(self) -> str:
        """What net.ipv4.conf.all.src_valid_mark was before there was a policy in place."""
        try:
            return str(json.loads(self.path.read_bytes())[_SETTING])
        except (OSError, ValueError, TypeError, KeyError):
            return sysctls.read(sysctls.SOURCE_MARK) or "1"

    def _policy_in_place(self) -> TrafficPolicy:
        """The policy that tells where our rules are; a spoilt file leaves the places that are usual."""
        if self._held is not None:
            return self._held[0]
        try:
            return self.remembered() or TrafficPolicy()
        except HostError:
            return TrafficPolicy()

    def forget(self) -> None:
        """Remove the file if it is there."""
        try:
            remove_file(self.path)
        except OSError as error:
            raise HostError(f"The file {self.path} cannot be removed ({error.strerror}).") from error
