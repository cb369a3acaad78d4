"""The resolver configuration of the host: which program manages it, and how to set and restore it."""
