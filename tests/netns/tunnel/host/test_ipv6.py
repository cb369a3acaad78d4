"""An exit without IPv6: refused at once, AAAA answered empty; and an exit that gets it later."""

from __future__ import annotations

import pytest
from lab.topology import TARGET_ADDRESS, TARGET_ADDRESS6
from lab.tunnel import edit

pytestmark = pytest.mark.root

ADDRESSES = "dig +short +time=20 +tries=1 target.test"


def test_the_host_follows_an_exit_that_has_no_ipv6_and_then_has_it(new_rig, eventually):
    with new_rig(server={"egress": {"ipv6": '"off"'}}) as own:
        assert own.client(f"{ADDRESSES} A").split() == [TARGET_ADDRESS]
        assert own.client(f"{ADDRESSES} AAAA").split() == []
        refused = own.client(f"curl -sS -m 60 -w '%{{time_total}}' {own.target.file_url6} 2>&1", check=False)
        assert "(7)" in refused and float(refused.split()[-1]) < 20, refused

        assert own.tunnel.stop_exit() == 0
        edit(own.tunnel.directory / "server.toml", {"egress": {"ipv6": '"on"'}})
        own.tunnel.start_exit()
        eventually(lambda: "the exit has IPv6 now" in own.tunnel.client_output())
        assert own.client(f"{ADDRESSES} AAAA").split() == [TARGET_ADDRESS6]
        fetched = own.client(f"curl -sSf {own.target.file_url6} | sha256sum")
        assert fetched.split()[0] == own.target.file_sha256
