"""Half-Tunnel beside other VPNs, measured in namespaces in one run: `scripts/bench`."""
