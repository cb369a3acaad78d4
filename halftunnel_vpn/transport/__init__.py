"""WebSocket legs over real sockets: dialling them, listening for them, and the bytes in between.

The only package that imports ``websockets``. It uses only the Sans-I/O layer.
"""
