"""Many clients of one exit, and replicas behind a proxy: sessions over real sockets with TLS, without TUN."""
