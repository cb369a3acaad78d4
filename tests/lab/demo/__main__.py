"""`python -m lab.demo`, which scripts/demo runs."""

from __future__ import annotations

import sys

from lab.demo.main import main

sys.exit(main(sys.argv[1:]))
