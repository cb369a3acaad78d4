"""`python -m halftunnel_vpn.lab.leaks`."""

from __future__ import annotations

import sys

from halftunnel_vpn.lab.leaks.main import main

sys.exit(main(sys.argv[1:]))
