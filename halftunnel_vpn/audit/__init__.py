"""What a capture or a record log of a tunnel shows to those who watch its paths: `htvpn audit FILE`."""
