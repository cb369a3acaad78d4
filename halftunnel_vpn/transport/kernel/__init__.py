"""What legs ask of the Linux kernel: socket options, TCP_INFO, memory and scheduling."""
