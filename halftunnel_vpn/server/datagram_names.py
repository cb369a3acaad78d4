"""Names of destinations in one datagram stream. Each is resolved once and labels the answers."""

from __future__ import annotations

from collections.abc import Callable

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.datagram import DataRun
from halftunnel_vpn.server.egress import EgressPolicy

MAX_NAMES = 256
"""Names of destinations that one stream remembers to label the answers."""

MAX_UNRESOLVED = 64
"""Runs of one stream that wait for the resolution of their names."""

Resolve = Callable[[str, Callable[[list[bytes]], None]], Callable[[], object]]
"""Starts to resolve a name; calls back with its addresses, the best first, or with none.

It returns a function that cancels the query and may be called at any time."""


class DatagramNames:
    """``send`` is called with an address and a run, ``not_found`` with a run whose name has no address."""

    __slots__ = (
        "_addresses",
        "_counters",
        "_is_closed",
        "_lookups",
        "_names",
        "_not_found",
        "_policy",
        "_resolve",
        "_send",
        "_unresolved",
    )

    def __init__(
        self,
        resolve: Resolve,
        policy: EgressPolicy,
        counters: Counters,
        send: Callable[[bytes, DataRun], None],
        not_found: Callable[[str, DataRun], None],
    ) -> None:
        self._resolve = resolve
        self._policy = policy
        self._counters = counters
        self._send = send
        self._not_found = not_found
        self._addresses: dict[str, bytes] = {}
        self._names: dict[bytes, str] = {}
        self._unresolved: dict[str, list[DataRun]] = {}
        self._lookups: dict[str, Callable[[], object]] = {}
        self._is_closed = False

    def host_of(self, address: bytes) -> bytes | str:
        """Return the name that was last used for ``address``, or the address itself."""
        return self._names.get(address, address)

    def send(self, name: str, run: DataRun) -> None:
        """Send ``run`` to the address of ``name`` as soon as it is known."""
        address = self._addresses.get(name)
        if address is not None:
            self._names[address] = name  # if several names have one address, the last one is used
            self._send(address, run)
            return
        if sum(map(len, self._unresolved.values())) >= MAX_UNRESOLVED:
            self._counters.drop("datagram-name-unresolved")
            return
        waiting = self._unresolved.get(name)
        if waiting is not None:
            waiting.append(run)
            return
        self._unresolved[name] = [run]
        self._lookups[name] = self._resolve(name, lambda addresses: self._resolved(name, addresses))

    def _resolved(self, name: str, addresses: list[bytes]) -> None:
        runs = self._unresolved.pop(name, [])
        self._lookups.pop(name, None)
        if self._is_closed:
            return
        if not addresses:
            for run in runs:
                self._counters.drop("datagram-name-not-found")
                self._not_found(name, run)
            return
        if len(self._addresses) >= MAX_NAMES:
            self._addresses.clear()
            self._names.clear()
        permits = self._policy.permits
        self._addresses[name] = next((one for one in addresses if permits(one)), addresses[0])
        for run in runs:
            self.send(name, run)

    def close(self) -> None:
        """Drop the waiting runs and cancel their queries."""
        self._is_closed = True
        self._unresolved.clear()
        for cancel in self._lookups.values():
            cancel()
        self._lookups.clear()
