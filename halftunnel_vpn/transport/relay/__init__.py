"""Relays: a stream on one side, a socket on the other."""
