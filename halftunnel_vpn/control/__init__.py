"""The control interface of a running process: HTTP/1.1 on a Unix socket or TCP."""
