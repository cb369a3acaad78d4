"""The web page of an exit for its operator, on a loopback address or a Unix socket."""
