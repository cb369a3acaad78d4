"""Sessions, streams and legs: the multiplexer of both ends, without input or output of its own.

``Session`` owns the streams and the legs of one client. Bytes go in through ``ByteStream`` and come out as
trains for whichever leg is writable; trains that arrive are handed to ``Session.train_received``, which is in
``packet_dispatch.py``.
"""
