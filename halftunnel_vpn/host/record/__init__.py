"""The records that outlive a process: which process may change this host, and what was changed."""
