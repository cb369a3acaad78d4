"""The client: this host's TUN device on one side, the legs to the exit on the other."""
