"""What the kernel is to hold, and the edge at which it is asked and changed."""
