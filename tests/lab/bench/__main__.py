"""`python -m lab.bench`."""

from __future__ import annotations

import sys

from lab.bench.main import main

sys.exit(main())
