"""Half-Tunnel: a full-tunnel VPN whose two directions never share a road."""

__version__ = "0.1.0"
