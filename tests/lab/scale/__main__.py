"""`python -m lab.scale`."""

from __future__ import annotations

import sys

from lab.scale.main import main

sys.exit(main())
