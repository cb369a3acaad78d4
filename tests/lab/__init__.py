"""A client, an exit and a target in network namespaces: for the demo, the tests and the benchmark."""

from __future__ import annotations

from lab.links import LinkCounters
from lab.target import Target, start_lan_resolver, start_target
from lab.topology import Lab

__all__ = ["Lab", "LinkCounters", "Target", "start_lan_resolver", "start_target"]
