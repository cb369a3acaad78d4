"""The priority of the process: setpriority(2), sched(7).

All traffic of a host goes through one process at each end. When that waits for a processor, all traffic
waits. Linux keeps the value per thread, and threads and programs started by it inherit it. So worker threads
and the programs that they run, which are not part of the data path, get back their original value.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor

from halftunnel_vpn.config.shared import DEFAULT_NICE

MAX_WORKERS = 16
"""Threads for calls that block: host changes, files."""

ORDINARY = 0
"""The nice value of a program that asks for nothing."""

log = logging.getLogger(__name__)


def take_priority(nice: int = DEFAULT_NICE) -> None:
    """Give the calling thread the nice value ``nice``; goes on without where that is not allowed."""
    if os.getpriority(os.PRIO_PROCESS, 0) == nice:
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except PermissionError:
        log.debug("nice %d is not allowed here (CAP_SYS_NICE): the priority stays as it is", nice)


def give_way() -> None:
    """Yield the processor to waiting threads, if this thread has precedence over ordinary ones.

    Without this priority it would cost a whole time slice: since Linux 6.18 a yielding thread loses the rest.
    """
    if os.getpriority(os.PRIO_PROCESS, 0) < ORDINARY:
        os.sched_yield()


def ordinary_workers() -> ThreadPoolExecutor:
    """Threads for blocking calls, at the priority of an ordinary program, whatever the event loop has."""
    return ThreadPoolExecutor(MAX_WORKERS, "worker", initializer=be_ordinary)


def be_ordinary() -> None:
    """Give the calling thread the priority of an ordinary program."""
    if os.getpriority(os.PRIO_PROCESS, 0) < ORDINARY:
        take_priority(ORDINARY)
