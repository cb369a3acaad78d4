"""SOCKS and HTTP proxies, and forwarded ports, whose connections are streams to the exit."""
