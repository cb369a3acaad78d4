"""A kernel in memory, for tests without root. It can be made to refuse changes or to lose its table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel.netlink import Link
from halftunnel_vpn.host.kernel.routes import Route, Rule, Uplink
from halftunnel_vpn.host.kernel.sysctls import SOURCE_MARK, Sysctls

_Result = TypeVar("_Result")


class FakeNetlink:
    """Implements ``NetlinkPort``."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel
        self._rules: set[Rule] = set()
        self._routes: set[Route] = set()

    def link(self, name: str) -> Link | None:
        """See NetlinkPort."""
        return self._kernel.links.get(name)

    def set_mtu(self, index: int, mtu: int) -> None:
        """See NetlinkPort."""
        self._change_link(index, mtu=mtu)

    def set_up(self, index: int, *, up: bool) -> None:
        """See NetlinkPort."""
        self._change_link(index, up=up)

    def add_address(self, index: int, text: str) -> None:
        """See NetlinkPort."""
        self._change_link(index, addresses=self._addresses(index) | {text})

    def remove_address(self, index: int, text: str) -> None:
        """See NetlinkPort."""
        self._change_link(index, addresses=self._addresses(index) - {text})

    def rules(self) -> set[Rule]:
        """See NetlinkPort."""
        return set(self._rules)

    def add_rules(self, rules: Sequence[Rule]) -> None:
        """See NetlinkPort."""
        for rule in rules:
            self._kernel.changing("rule")
            self._rules.add(rule)

    def remove_rules(self, rules: Sequence[Rule]) -> None:
        """See NetlinkPort."""
        self._rules.difference_update(rules)

    def routes(self, tables: Iterable[int]) -> set[Route]:
        """See NetlinkPort."""
        wanted = set(tables)
        return {route for route in self._routes if route.table in wanted}

    def add_route(self, route: Route, index: int) -> None:
        """See NetlinkPort."""
        self._kernel.changing("route")
        self._routes.add(route)

    def remove_route(self, route: Route) -> None:
        """See NetlinkPort."""
        self._routes.discard(route)

    def uplinks(self, tun: str) -> tuple[Uplink, ...]:
        """See NetlinkPort."""
        return ()

    def is_empty(self) -> bool:
        """Return whether there is no rule and no route."""
        return not self._rules and not self._routes

    def _addresses(self, index: int) -> frozenset[str]:
        return next(link.addresses for link in self._kernel.links.values() if link.index == index)

    def _change_link(self, index: int, **values: Any) -> None:
        for name, link in self._kernel.links.items():
            if link.index == index:
                self._kernel.links[name] = dataclasses.replace(link, **values)


class FakeKernel:
    """Implements ``KernelPort``. Settings are files below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.sysctls = Sysctls(directory)
        self.links: dict[str, Link] = {}
        """Network devices by name."""
        self.refuses = ""
        """The kind of change ("table", "rule" or "route") that fails with HostError; "" for none."""
        self.tables: list[str] = []
        """Every nft table that was installed, oldest first."""
        self.state = FakeNetlink(self)
        self._table: str | None = None
        setting = directory / SOURCE_MARK
        setting.parent.mkdir(parents=True)
        setting.write_text("0\n")

    def open_device(self, name: str) -> None:
        """Add a device, as opening a TUN does. IPv6 is off."""
        self.links[name] = Link(len(self.links) + 2, 1500, False, frozenset())
        (self.sysctls.root / "ipv4/conf" / name).mkdir(exist_ok=True)

    def flush_table(self) -> None:
        """Lose the nft table, as by `nft flush ruleset`."""
        self._table = None

    def changing(self, kind: str) -> None:
        """Raise HostError if this kind of change must fail."""
        if kind == self.refuses:
            raise HostError(f"The kernel refused a {kind}.")

    def netlink(self, work: Callable[[FakeNetlink], _Result]) -> _Result:
        """See KernelPort."""
        return work(self.state)

    def replace_table(self, text: str) -> None:
        """See KernelPort."""
        self.changing("table")
        self._table = text
        self.tables.append(text)

    def table(self) -> str | None:
        """See KernelPort."""
        return self._table

    def remove_table(self) -> None:
        """See KernelPort."""
        self._table = None

    def has_device(self, name: str) -> bool:
        """See KernelPort."""
        return name in self.links
