"""The door through which a running process is asked and told things: HTTP/1.1 on TCP or a Unix socket."""
