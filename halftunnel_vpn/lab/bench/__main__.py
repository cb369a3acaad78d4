"""`python -m halftunnel_vpn.lab.bench`."""

from __future__ import annotations

import sys

from halftunnel_vpn.lab.bench.main import main

sys.exit(main())
