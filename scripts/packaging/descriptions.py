"""What the three packages say of themselves."""

from __future__ import annotations

from typing import Final

PROGRAM: Final = (
    "full-tunnel VPN whose two directions never share a path",
    """
What a host sends leaves through WebSockets to one domain, what it receives
arrives through WebSockets from another one.

This package has the program htvpn and its modules. The units of a client are
in halftunnel-client, those of an exit in halftunnel-server.
""",
)

CLIENT: Final = (
    "client of the Half-Tunnel VPN, as a service",
    """
The daemon that carries the traffic of this host, its control socket, and the
kill switch before the network at boot.

Nothing is tunnelled before 'htvpn up' is called.
""",
)

SERVER: Final = (
    "exit of the Half-Tunnel VPN, as a service",
    """
The server that joins the two directions of its clients and connects to their
destinations. It runs without privileges, under a user of its own.

Nothing listens before 'htvpn server init' is called and the unit is enabled.
""",
)
