"""HTTP/1.1 messages, without input and output (RFC 9112). The only package that knows ``h11``."""
