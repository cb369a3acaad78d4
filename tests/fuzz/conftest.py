"""Makes the targets importable: they are shared with ``run.py``, which needs a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
