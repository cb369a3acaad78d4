"""The simplest things, first: if these fail, look here."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.root


def test_ping_goes_through(rig):
    assert " 3 received" in rig.client("ping -c 3 -i 0.2 -w 20 198.51.100.2")
    assert " 3 received" in rig.client("ping -c 3 -i 0.2 -w 20 2001:db8:100::2")


def test_a_download_arrives_whole(rig):
    for url in (rig.target.file_url, rig.target.file_url6):
        assert rig.target.file_sha256 in rig.client(f"curl -gsf {url} | sha256sum")
