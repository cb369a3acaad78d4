"""The legs of a session: open them, keep them up, choose among the domains of a path."""
