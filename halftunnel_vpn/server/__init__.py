"""The exit server: sessions on one side, ordinary sockets on the other. It needs no privileges."""
