"""The daemon: it owns the tunnel of this host, and decides at every moment what may leave outside it."""
