"""IP packets as the TUN device carries them: parsing, building, reassembly. Pure, no I/O.

Every parser takes what anybody may have sent and raises nothing but
:class:`~halftunnel_vpn.errors.PacketError`. Every builder takes what our own code decided and treats
nonsense as a programming error (``ValueError`` or ``struct.error``).
"""
