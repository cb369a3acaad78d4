"""Early at boot, before the network: enforce the kill switch that was in force at shutdown.

``python -m halftunnel_vpn.daemon.lockdown`` reads the file of ``host/record/policy_file.py``, enforces the
policy in it, and ends. If the file cannot be read, the policy is unknown, so all traffic is refused.
"""

from __future__ import annotations

import sys

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.host import Host
from halftunnel_vpn.host.kernel.traffic_policy import TrafficPolicy
from halftunnel_vpn.host.record.journal import state_directory
from halftunnel_vpn.host.record.lock import HostBusy, HostLock, Role


def main() -> int:
    """Return 0 when the saved policy is in force (or there is none), otherwise 1 after one sentence.

    If a client runs already, it has enforced the saved policy itself and stays in charge.
    """
    state_dir = state_directory()
    try:
        with HostLock(state_dir, Role.LOCKDOWN):
            return _restore(Host(state_dir))
    except HostError as error:
        print(f"halftunnel: {error}", file=sys.stderr)
        return 0 if isinstance(error, HostBusy) else 1


def _restore(host: Host) -> int:
    try:
        policy = host.remembered()
    except HostError as error:
        host.restore(TrafficPolicy())
        print(f"halftunnel: all traffic is refused until this is repaired: {error}", file=sys.stderr)
        return 1
    if policy is not None:
        host.restore(policy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
