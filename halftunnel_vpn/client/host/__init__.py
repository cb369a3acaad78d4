"""The client's side of this host: who changes it for a tunnel and a kill switch, and who watches it."""
