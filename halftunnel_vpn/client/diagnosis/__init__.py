"""Find out what keeps a client from its exit: `htvpn check` and `htvpn bugreport`."""
