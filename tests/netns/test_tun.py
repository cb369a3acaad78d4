"""The TUN device against the real kernel: what it hands over, what it takes, what it refuses."""

from __future__ import annotations

import platform
import select
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest
from lab import Lab
from lab.topology import CLIENT
from scapy.layers.inet import IP, TCP, UDP

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.tun import TunDevice

pytestmark = pytest.mark.root

PLAIN = bytes(10)
VNET = struct.Struct("<BBHHHH")
GSO_UDP_L4 = 5
UDP_SEGMENT = 103
HERE, THERE = "10.99.0.1", "10.99.0.2"


@pytest.fixture
def tun(client: Lab) -> Iterator[TunDevice]:
    """A device that is up, with a route to 10.99.0.2."""
    device = TunDevice.open("htvpn0", mtu=1500, txqueuelen=77, counters=Counters())
    set_up(client, "address add 10.99.0.1/24 dev htvpn0")
    set_up(client, "link set dev htvpn0 up")
    yield device
    device.close()


def set_up(lab: Lab, words: str) -> str:
    return lab.run(CLIENT, ["ip", *words.split()]).stdout


def next_frame(device: TunDevice, protocol: int) -> tuple[bytes, IP]:
    """The next IPv4 frame of a protocol: vnet header and packet. (The kernel sends MLD of its own.)"""
    while select.select([device.fd], [], [], 30)[0]:
        frame = device.read()
        packet = IP(frame[10:])
        if packet.version == 4 and packet.proto == protocol:
            return frame[:10], packet
    raise AssertionError("the kernel sent nothing into the device")


def test_a_new_device_has_what_was_asked_for_and_is_down(client: Lab) -> None:
    device = TunDevice.open("htvpn0", mtu=1380, txqueuelen=77)
    shown = set_up(client, "-d link show dev htvpn0")
    assert "mtu 1380" in shown and "qlen 77" in shown and "state DOWN" in shown
    assert "type tun pi off vnet_hdr on persist off" in shown
    device.close()
    device.close()
    with pytest.raises(HostError, match="htvpn0"):
        set_up(client, "link show dev htvpn0")


def test_a_child_process_does_not_inherit_the_device(tun: TunDevice) -> None:
    listing = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True)
    assert "/dev/net/tun" not in listing.stdout


def test_what_an_application_sends_arrives_as_a_frame(tun: TunDevice) -> None:
    with pytest.raises(BlockingIOError):
        while True:
            tun.read()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
        application.sendto(b"hello", (THERE, 4000))
        _, packet = next_frame(tun, socket.IPPROTO_UDP)
    assert (packet.src, packet.dst, packet[UDP].dport) == (HERE, THERE, 4000)
    assert bytes(packet[UDP].payload) == b"hello"


def test_what_is_written_in_parts_reaches_an_application(tun: TunDevice) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
        application.bind((HERE, 4000))
        application.settimeout(30)
        datagram = bytes(IP(src=THERE, dst=HERE) / UDP(sport=7, dport=4000) / b"answer")
        tun.write([PLAIN, memoryview(datagram)[:28], bytearray(datagram[28:])])
        assert application.recvfrom(100) == (b"answer", (THERE, 7))


def test_a_burst_holds_no_more_than_was_asked_for(tun: TunDevice) -> None:
    with pytest.raises(BlockingIOError):
        while True:
            tun.read()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
        for number in range(5):
            application.sendto(b"%d" % number, (THERE, 4000))
    first, second = tun.read_burst(3), tun.read_burst(100)
    assert [frame[-1:] for frame in first] == [b"0", b"1", b"2"]
    assert [frame[-1:] for frame in second] == [b"3", b"4"]
    assert tun.read_burst(100) == []


def test_the_kernel_leaves_segmentation_and_checksums_to_us(tun: TunDevice) -> None:
    # the SYN of a connection: its checksum is only begun (VIRTIO_NET_HDR_F_NEEDS_CSUM)
    with socket.socket() as application:
        application.setblocking(False)
        application.connect_ex((THERE, 80))
        header, packet = next_frame(tun, socket.IPPROTO_TCP)
    assert packet[TCP].flags == "S"
    flags, _, _, _, checksum_start, checksum_offset = VNET.unpack(header)
    assert (flags, checksum_start, checksum_offset) == (1, 20, 16)


def test_udp_goes_through_in_aggregates_both_ways(tun: TunDevice) -> None:
    major, minor = platform.release().split(".")[:2]
    assert tun.uso == ((int(major), int(minor)) >= (6, 2))
    expected = [(GSO_UDP_L4, 1000, 3500)] if tun.uso else [(0, 0, 1000)] * 3 + [(0, 0, 500)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
        application.bind((HERE, 4000))
        application.settimeout(30)
        application.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        application.sendto(bytes(3500), (THERE, 7))
        for one in expected:
            header, packet = next_frame(tun, socket.IPPROTO_UDP)
            _, gso_type, _, gso_size, _, _ = VNET.unpack(header)
            assert (gso_type, gso_size, len(packet[UDP].payload)) == one
        if not tun.uso:
            return
        # and back: one frame, four datagrams
        back = bytearray(bytes(IP(src=THERE, dst=HERE) / UDP(sport=7, dport=4000, chksum=0) / bytes(3500)))
        back[26:28] = pseudo_header_sum(THERE, HERE, 17, 3508)
        tun.write([VNET.pack(1, GSO_UDP_L4, 28, 1000, 20, 6), back])
        assert [len(application.recv(5000)) for _ in range(4)] == [1000, 1000, 1000, 500]


def test_a_refused_frame_is_counted_and_nothing_is_raised(client: Lab) -> None:
    counters = Counters()
    device = TunDevice.open("htvpn0", mtu=1500, counters=counters)
    packet = bytes(IP(src=THERE, dst=HERE) / UDP())
    device.write([PLAIN, packet])
    assert counters.dropped == {"tun-write-eio": 1}, "the device is down"
    set_up(client, "link set dev htvpn0 up")
    device.write([PLAIN, b"\xf5" + bytes(30)])
    device.write([PLAIN[:4]])
    assert counters.dropped["tun-write-einval"] == 2, "no IP version, no whole header"
    set_up(client, "link delete dev htvpn0")
    device.write([PLAIN, packet])
    assert counters.dropped["tun-write-ebadfd"] == 1
    for read in (device.read, lambda: device.read_burst(10)):
        with pytest.raises(HostError, match="The device htvpn0 is gone"):
            read()
    device.close()


def test_a_name_that_is_taken_is_refused_in_one_sentence(tun: TunDevice) -> None:
    for taken in ("htvpn0", "lo", "road-a"):
        with pytest.raises(HostError, match=f"^The device name {taken} is taken: "):
            TunDevice.open(taken, mtu=1500)


@pytest.mark.parametrize("name", ["", "a/b", "..", "with space", "sixteen-letters-", "htvpn%d"])
def test_a_name_that_is_not_allowed_is_refused(client: Lab, name: str) -> None:
    with pytest.raises(HostError, match="is not allowed: choose"):
        TunDevice.open(name, mtu=1500)


def test_an_mtu_that_is_not_allowed_leaves_no_device(client: Lab) -> None:
    with pytest.raises(HostError, match="The device htvpn0 does not accept the MTU 20"):
        TunDevice.open("htvpn0", mtu=20)
    TunDevice.open("htvpn0", mtu=1500).close()


def test_without_root_the_sentence_says_sudo(client: Lab) -> None:
    program = (
        "import os\n"
        "from halftunnel_vpn.tun import TunDevice\n"
        "os.setuid(65534)\n"
        "try: TunDevice.open('htvpn0', mtu=1500)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    ended = client.python(CLIENT, program)
    assert ended.stdout.startswith("HostError A TUN device needs root")


def pseudo_header_sum(source: str, destination: str, protocol: int, length: int) -> bytes:
    words = struct.unpack(
        ">6H", socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack(">HH", protocol, length)
    )
    total = sum(words)
    return struct.pack(">H", (total & 0xFFFF) + (total >> 16))
