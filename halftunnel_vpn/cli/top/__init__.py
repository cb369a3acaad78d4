"""`htvpn top`: a terminal view of the running client."""
