"""Files that must survive a crash, a power failure and an attack by other users."""
