"""Half-Tunnel: a full-tunnel VPN whose two directions never share a network path."""

from importlib import machinery

__version__ = "0.1.0"

_found = machinery.PathFinder.find_spec(f"{__name__}.timers", __path__)
_is_compiled = _found is not None and isinstance(_found.loader, machinery.ExtensionFileLoader)

__build__ = f"{__version__} (compiled)" if _is_compiled else __version__
"""The version for people. It also says whether the pure floors are compiled (scripts/compile)."""
