"""WebSocket legs over real sockets: dialling them, listening for them, and the bytes in between.

The only module that knows ``websockets``, and it uses nothing of it but the Sans-I/O layer.
"""
