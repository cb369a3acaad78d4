"""The short way of plain frames agrees with the general one, for every frame that it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.flow import tracker as tracker_module
from halftunnel_vpn.flow.tcp.fast_path import EXAMINED_FLAGS, read
from halftunnel_vpn.inet import ip, tcp, vnet

TRUSTED = bytes((vnet.DATA_VALID,)) + bytes(9)
ME, THERE = "10.73.72.1", "198.51.100.2"
ME6, THERE6 = "fd48::1", "2001:db8:100::2"

OF_THE_KEY = {"ip-bad-source", "ip-bad-destination", "tcp-bad-port"}
"""What is wrong with addresses and ports: no flow has them, so nothing is found with such a key."""


def frame(version: int = 4, *, text: bytes = b"text", **fields: object) -> bytes:
    """What the host sends in a connection in full swing."""
    network = IP(src=ME, dst=THERE) if version == 4 else IPv6(src=ME6, dst=THERE6)
    values = {"sport": 4000, "dport": 80, "flags": "PA", "seq": 101, "ack": 0x01020305} | fields
    return TRUSTED + bytes(network / TCP(**values) / Raw(text))


@st.composite
def spoilt_frames(draw: st.DrawFn) -> bytes:
    """Frames with some bytes that are not what a host would write, longer or shorter than they say."""
    text = draw(st.binary(max_size=40))
    flags = draw(st.sampled_from(["A", "PA", "PA", "FA", "SA", "RA", "S", "R", "UA", "A", "PAEC"]))
    options = draw(st.sampled_from([[], [], [("NOP", None)] * 4, [("SAck", (1, 9))]]))
    version = draw(st.sampled_from((4, 6)))
    number = draw(st.sampled_from((101, 102, 105, 99, 0xFFFF_FFFF)))
    spoilt = bytearray(frame(version, text=text, flags=flags, options=options, seq=number))
    for at, value in draw(
        st.lists(st.tuples(st.integers(0, len(spoilt) - 1), st.integers(0, 255)), max_size=2)
    ):
        spoilt[at] = value
    change = draw(st.just(0) | st.integers(-60, 8))
    whole = bytes(spoilt[:change]) if change < 0 else bytes(spoilt) + bytes(change)
    return repaired(whole) if draw(st.booleans()) else whole


def repaired(spoilt: bytes) -> bytes:
    """The same with a right IPv4 header checksum, so that other mistakes are reached."""
    if len(spoilt) < 30 or spoilt[10] != 0x45:
        return spoilt
    header = spoilt[10:20] + b"\0\0" + spoilt[22:30]
    total = -sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, 20, 2)) % 0xFFFF
    return spoilt[:20] + total.to_bytes(2, "big") + spoilt[22:]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("text", [b"", b"x" * 1000])
@pytest.mark.parametrize("flags", ["A", "PA", "PAEC"])
def test_what_a_connection_in_full_swing_sends_is_plain(version, text, flags):
    plain = read(frame(version, text=text, flags=flags, window=77))
    assert plain is not None
    key, *numbers, found = plain
    assert numbers == [101, 0x01020305, 77] and found == text
    assert len(key) == (12 if version == 4 else 36) and key.endswith(bytes((4000 >> 8, 4000 & 255, 0, 80)))


@given(spoilt_frames())
def test_what_is_plain_is_read_as_the_general_way_does(spoilt):
    plain = read(spoilt)
    if plain is None:
        return
    key, sequence, acknowledgement, window, text = plain
    try:
        packet = ip.parse(memoryview(spoilt)[vnet.VNET_HEADER_LENGTH :])
        segment = tcp.parse(packet, checksum_trusted=True)
    except PacketError as error:
        assert error.reason in OF_THE_KEY
        return
    ports = segment.source_port.to_bytes(2, "big") + segment.destination_port.to_bytes(2, "big")
    assert key == packet.source + packet.destination + ports
    assert (packet.protocol, packet.fragment) == (ip.PROTOCOL_TCP, None)
    assert segment.flags & EXAMINED_FLAGS == tcp.ACK and segment.sack_blocks == ()
    read_in_general = (segment.sequence, segment.acknowledgement, segment.window, segment.payload)
    assert (sequence, acknowledgement, window, text) == read_in_general


@given(version=st.sampled_from((4, 6)), frames=st.lists(spoilt_frames(), max_size=5))
def test_a_flow_comes_to_the_same_without_the_short_way(new_world, version, frames):
    outcomes = []
    short_way = tracker_module.read_plain
    for reader in (short_way, lambda frame: None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tracker_module, "read_plain", reader)
            world = new_world()
            number = opened(world, version)
            world.exit_sends(b"an answer")
            for one in [frame(version, ack=number + 9), *frames, frame(version, text=b"more", seq=105)]:
                world.tracker.frame_arrived(one, world.now)
                world.tracker.flush(world.now)
        outcomes.append((world.frames, world.stream.sent, world.stream.credited, world.dropped))
    assert outcomes[0] == outcomes[1]


def opened(world, version: int) -> int:
    """A connection of the host; the number that it expects next."""
    world.host_sends(frame(version, text=b"", flags="S", seq=100, ack=0)[10:])
    world.stream.handler.opened(world.now)
    number = world.host_gets()[TCP].seq + 1
    world.tracker.frame_arrived(frame(version, text=b"", flags="A", ack=number), world.now)
    return number
