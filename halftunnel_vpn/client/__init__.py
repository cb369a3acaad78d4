"""The client: this host's TUN device on one side, the roads to the exit on the other."""
