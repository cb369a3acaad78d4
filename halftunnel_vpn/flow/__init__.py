"""The flows of this host: what comes out of the TUN device, mapped to streams of the session, and back."""
