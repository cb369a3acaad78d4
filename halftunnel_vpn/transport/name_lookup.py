"""getaddrinfo(3) in threads that do not keep the process alive.

The C library can hang for half a minute when a name server is silent. The event loop's own getaddrinfo runs
in a pool whose threads are joined when the process ends, so SIGTERM would take as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from halftunnel_vpn.transport.kernel.scheduling import be_ordinary

MAX_LOOKUPS = 8
"""Running look-ups in this process. A further one fails at once, like one that no server answers."""

_under_way = threading.BoundedSemaphore(MAX_LOOKUPS)


T = TypeVar("T")


async def look_up(host: str) -> list[str]:
    """Return the addresses of ``host`` as the C library finds them, IPv6 link-local ones with their scope.

    Raises OSError (socket.gaierror), UnicodeError for what is no name. Cancelling it takes no time.
    """
    return await in_thread(lambda: _addresses(host))


async def in_thread(work: Callable[[], T]) -> T:
    """Return the outcome of ``work``, which may hang for long; nobody waits for it once this is cancelled.

    Raises what ``work`` raises, and socket.gaierror when too many such calls are under way.
    """
    slots = _under_way
    if not slots.acquire(blocking=False):
        raise socket.gaierror(socket.EAI_AGAIN, "too many look-ups are running")
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def report(set_outcome: Callable[[], None]) -> None:
        if not outcome.done():  # otherwise the caller was cancelled
            set_outcome()

    def run() -> None:
        be_ordinary()
        try:
            found = work()
        except Exception as error:
            # bound now, because the name is deleted at the end of the block
            set_outcome = partial(outcome.set_exception, error)
        else:
            set_outcome = partial(outcome.set_result, found)
        finally:
            slots.release()
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
            loop.call_soon_threadsafe(report, set_outcome)

    try:
        threading.Thread(target=run, name="lookup", daemon=True).start()
    except RuntimeError as error:  # no thread is left
        slots.release()
        raise socket.gaierror(socket.EAI_AGAIN, str(error)) from error
    return await outcome


def _addresses(host: str) -> list[str]:
    found = []
    for family, _, _, _, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
        text = str(address[0])
        if family == socket.AF_INET6 and len(address) == 4 and address[3] and "%" not in text:
            text += f"%{socket.if_indextoname(address[3])}"
        found.append(text)
    return list(dict.fromkeys(found))
