"""Programs that people use, through the proxy of a user without privileges."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.root


def test_the_proxy_has_no_privilege(rig):
    status = rig.client("cat /proc/$(pgrep -u nobody -f 'halftunnel_vpn.cli proxy' -o)/status")
    assert "\nUid:\t65534\t65534" in status
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"\n{name}:\t0000000000000000" in status


@pytest.mark.parametrize(
    "options",
    [
        "--socks5-hostname 127.0.0.1:1080",
        "--socks4a 127.0.0.1:1080",
        "--proxy http://127.0.0.1:8080",
        "--proxy http://127.0.0.1:8080 --proxytunnel",
    ],
)
def test_curl_downloads_whole_by_name(rig, options):
    assert rig.target.file_sha256 in rig.client(
        f"curl -sSf {options} http://target.test/large.bin | sha256sum"
    )
