"""The wire format, the handshake and the records: pure functions over bytes (docs/PROTOCOL.md)."""
