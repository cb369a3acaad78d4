"""The messages of pyroute2 for routes and addresses, without the rest of that package.

Its sockets run an event loop for each request, and importing them takes a sixth of a start. The messages are
sent by ``route_socket``.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import threading
from typing import Any, NamedTuple

_PACKAGE = "pyroute2"

_turn = threading.Lock()


class NetlinkLibrary(NamedTuple):
    """The classes of messages about a route and an address."""

    route: Any
    address: Any


def load() -> NetlinkLibrary:
    """Import them the first time."""
    with _turn:
        return _load()


@functools.cache
def _load() -> NetlinkLibrary:
    if _PACKAGE not in sys.modules:
        found = importlib.util.find_spec(_PACKAGE)
        if found is not None:
            # An empty package of that name lets its modules be imported without what its __init__ imports.
            sys.modules[_PACKAGE] = importlib.util.module_from_spec(found)
            try:
                return _parts()
            except ImportError:
                pass  # a version whose modules need the whole, or have other names
            finally:
                del sys.modules[_PACKAGE]  # a later import gets the whole
    return _parts()


def _parts() -> NetlinkLibrary:
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    return NetlinkLibrary(rtmsg, ifaddrmsg)
