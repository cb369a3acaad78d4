"""`python -m lab.leaks`."""

from __future__ import annotations

import sys

from lab.leaks.main import main

sys.exit(main(sys.argv[1:]))
