"""The desired state of the kernel as data, and the interface through which it is read and changed."""
