"""The client's side of this host: what changes it for a tunnel and a kill switch, and what watches it."""
