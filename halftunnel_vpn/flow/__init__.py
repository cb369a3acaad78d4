"""Map the IP packets that this host sends to the TUN device to streams of the session, and back."""
