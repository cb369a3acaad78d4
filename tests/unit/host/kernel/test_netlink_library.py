"""How much of pyroute2 is loaded for links, addresses and routes."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from halftunnel_vpn.host.kernel import netlink_library
{before}
library = netlink_library.load()
print(library is netlink_library.load(), *(name for name in sys.modules if name.startswith("pyroute2")))
import pyroute2
from pyroute2.netlink.rtnl.rtmsg import rtmsg
print(rtmsg is library.route, pyroute2.IPRoute is not None)
"""


def loaded(before: str = "") -> set[str]:
    """The modules of pyroute2 after the library was loaded in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    first, second = done.stdout.splitlines()
    assert second == "True True", "it is the same library for a later import"
    again, *names = first.split()
    assert again == "True"
    return set(names)


def test_only_what_is_used_is_loaded():
    names = loaded()
    assert "pyroute2.netlink.rtnl.rtmsg" in names
    assert not names & {"pyroute2", "pyroute2.ndb", "pyroute2.conntrack", "pyroute2.iproute"}


def test_a_version_whose_modules_need_the_whole_gets_it():
    fails = (
        "parts, calls = netlink_library._parts, []\n"
        "def fail_once():\n"
        "    calls.append(1)\n"
        "    if len(calls) == 1: raise ImportError\n"
        "    import pyroute2\n"
        "    return parts()\n"
        "netlink_library._parts = fail_once\n"
    )
    assert {"pyroute2", "pyroute2.conntrack"} <= loaded(fails)


def test_what_another_module_has_loaded_is_used():
    assert {"pyroute2", "pyroute2.conntrack"} <= loaded("import pyroute2")
