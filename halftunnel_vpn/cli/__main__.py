"""``python -m halftunnel_vpn.cli``: the same as the command ``htvpn``."""

from halftunnel_vpn.cli.main import entry_point

if __name__ == "__main__":
    entry_point()
