"""`python -m lab.audit`."""

from __future__ import annotations

import sys

from lab.audit.main import main

sys.exit(main(sys.argv[1:]))
