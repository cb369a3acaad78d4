"""`htvpn demo`: run the demo of the source tree, if there is one."""

from __future__ import annotations

import os
import sys
from argparse import Namespace

from halftunnel_vpn.cli.installation import source_tree
from halftunnel_vpn.errors import HostError


def run(options: Namespace) -> int:
    """Replace this process by ``scripts/demo``. Raises HostError if there is no source tree."""
    tree = source_tree()
    if tree is None:
        raise HostError(
            "the demo needs the source tree, which is not part of an installed program: clone it, and run "
            "sudo ./scripts/demo there"
        )
    script = tree / "scripts" / "demo"
    sys.stdout.flush()
    flags = [f"--{name}" for name in ("keep", "remove") if getattr(options, name)]
    os.execv(script, [str(script), *flags])
