"""The resolver of the host: who manages it, and how to set and restore it."""
