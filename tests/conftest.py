"""Tests marked `root` run for real; without root they are skipped, but in CI they fail."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A busy machine is no reason to fail; in CI the same examples run every time.
settings.register_profile("project", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0 or os.environ.get("CI"):
        return
    skip = pytest.mark.skip(reason="needs root, /dev/net/tun and network namespaces; run with sudo")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)
