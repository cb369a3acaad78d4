"""The daemon. It owns the tunnel of this host and always decides what may leave outside it."""
