"""What a capture or a record log of a tunnel shows to observers of its paths: `htvpn audit FILE`."""
