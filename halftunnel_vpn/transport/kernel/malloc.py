"""Makes the C library keep the memory that a burst of records has used: mallopt(3).

By default the top of the heap is returned to the kernel as soon as 128 KiB of it are free. Then the pages of
every train are mapped and cleared again, which takes a tenth of the processor time of a download.
"""

from __future__ import annotations

import ctypes

KEPT_FREE = 16 * 1024 * 1024
"""Bytes at the top of the heap that may be free before any are given back: the window of one stream."""

MAPPED_ALONE = 1024 * 1024
"""Bytes from which a piece of memory is mapped for itself, and unmapped as soon as it is free."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Set both for this process; does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_FREE)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_ALONE)
