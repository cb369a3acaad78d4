"""The two names of pyroute2 that this program uses, without the rest of that package.

`import pyroute2` also loads what it has for conntrack, ipset, wireless devices and others, which takes
longer than all that is used here.
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
    """A netlink socket for links, addresses, rules and routes; the error of a refused request."""

    IPRoute: Any
    NetlinkError: Any


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
    return _whole()


def _parts() -> NetlinkLibrary:
    from pyroute2.iproute.linux import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    return NetlinkLibrary(IPRoute, NetlinkError)


def _whole() -> NetlinkLibrary:
    from pyroute2 import IPRoute, NetlinkError

    return NetlinkLibrary(IPRoute, NetlinkError)
