"""`htvpn demo`: run the demo of the source tree, where there is one."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

import halftunnel_vpn
from halftunnel_vpn.errors import HostError


def run(options: Namespace) -> int:
    """Replace this process by ``scripts/demo``. Raises HostError where there is no source tree."""
    script = Path(halftunnel_vpn.__file__).parents[1] / "scripts" / "demo"
    if not script.exists():
        raise HostError("the demo is part of the source tree: run sudo ./scripts/demo there")
    sys.stdout.flush()
    flags = [f"--{name}" for name in ("keep", "remove") if getattr(options, name)]
    os.execv(script, [str(script), *flags])
