"""`python -m halftunnel_vpn.lab.chaos`."""

from __future__ import annotations

import sys

from halftunnel_vpn.lab.chaos.main import main

sys.exit(main())
