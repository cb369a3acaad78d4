"""The demo: a whole tunnel in namespaces of its own, real traffic through it, and a verdict."""
