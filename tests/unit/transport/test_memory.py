"""What the C library does with the memory of a burst, seen in the page faults of a process of its own."""

from __future__ import annotations

import subprocess
import sys

FAULTS = """
import resource, sys
from halftunnel_vpn.transport.kernel.malloc import keep_freed_memory

def burst():
    records = [bytes(65000) for _ in range(50)]

if sys.argv[1] == "kept":
    keep_freed_memory()
burst()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    burst()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, timeout=60, check=True
    )
    return int(done.stdout)


def test_bursts_reuse_the_memory_of_the_one_before():
    mapped_anew = faults("given back")
    assert mapped_anew > 20 * 50 * 16, "40 bursts of 50 records of 16 pages: glibc gives it back by itself"
    assert faults("kept") < mapped_anew / 20
