"""Configuration files: TOML text in, frozen dataclasses out. All mistakes of a file are reported at once."""

DEFAULT_EXIT_DIRECTORY = "/var/lib/halftunnel-server"
"""Where an exit's files are unless the command line names another place; its unit has them there."""

DEFAULT_CONTROL_SOCKET = "/run/halftunnel/control.sock"
"""Where a client answers whose profile names no other place. All that the command line needs of a profile."""
