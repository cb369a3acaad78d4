"""Who may change this host, and what was changed: the records that outlive a process."""
