"""`python -m lab.chaos`."""

from __future__ import annotations

import sys

from lab.chaos.main import main

sys.exit(main())
