"""Writes the seeds, valid messages of each kind, so that fuzzing begins deep.

`python tests/fuzz/make_corpus.py` writes a file corpus/TARGET/NAME for each. Inputs that once broke something
stand here too, under a name that says what.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dnslib import EDNS0, QTYPE, RR, DNSHeader, DNSQuestion, DNSRecord
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
)
from scapy.packet import Raw

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from fuzz_targets import protocol  # noqa: E402
from fuzz_targets.packet import HOST_V6, SERVER_V6  # noqa: E402
from fuzz_targets.script import pieces  # noqa: E402
from run import FOUND  # noqa: E402

from halftunnel_vpn.inet import vnet  # noqa: E402
from halftunnel_vpn.protocol.handshake import receive_hello  # noqa: E402
from halftunnel_vpn.protocol.invitation import Invitation, InvitedPath, encode_link  # noqa: E402
from halftunnel_vpn.protocol.join import encode_join, encode_join_reply, encode_token_join  # noqa: E402
from halftunnel_vpn.protocol.keys import Direction  # noqa: E402
from halftunnel_vpn.protocol.shaping_terms import ShapingMode, ShapingTerms  # noqa: E402
from halftunnel_vpn.protocol.wire import PacketType, encode_authenticated, encode_header  # noqa: E402

CORPUS = HERE / "corpus"
REPOSITORY = HERE.parent.parent
VECTORS = REPOSITORY / "docs" / "vectors"
V4 = IP(src="10.0.0.2", dst="198.51.100.2")
V6 = IPv6(src="fd00::2", dst="2001:db8::2")

Seeds = Iterator[tuple[str, str, bytes]]
"""Target, name, bytes."""


def protocol_seeds() -> Seeds:
    """What peers send."""
    for index, packet in enumerate(_vectors("packets")):
        yield "wire_packet", f"vector-{index}", packet
    one = encode_header(PacketType.DATA, protocol.SESSION_ID, 1, 2, 3, 4) + b"data"
    fin = encode_header(PacketType.FIN, protocol.SESSION_ID, 1, 3, 3, 0)
    yield "wire_packet", "data", one
    signed = encode_authenticated(
        PacketType.RECONNECT, protocol.SESSION_ID, 0, 0, 0, protocol.NONCE, protocol.KEY
    )
    yield "wire_packet", "authenticated", signed
    yield "wire_train", "data-and-fin", one + fin
    padding = encode_header(PacketType.PADDING, protocol.SESSION_ID, 0, 0, 0, 8) + bytes(8)
    yield "wire_train", "data-and-padding", one + padding
    yield "wire_train", "cut", (one + fin)[:-1]
    yield "records", "two-trains", b"\0" + pieces(one) + b"\2" + pieces(one + fin) + b"\0\5\1\1" + pieces(one)
    first = protocol.client_handshake().message()
    offer = receive_hello(first, protocol.EXIT_KEYS)
    offer.open()
    yield "handshake_at_exit", "message-1", first
    answer, _ = offer.answer(protocol.EXIT_HELLO, protocol.EXIT_EPHEMERAL, padding=5)
    yield "handshake_at_client", "message-2", answer
    for target in ("handshake_of_a_client", "hellos"):
        yield target, "client-hello", protocol.CLIENT_HELLO.encode(3)
    yield "hellos", "exit-hello", protocol.EXIT_HELLO.encode(3)
    wish = ShapingTerms(ShapingMode.STRONG, True, 1_600_000, 100, 2**30)
    for target in ("handshake_of_a_client", "hellos"):
        yield target, "client-hello-shaping", replace(protocol.CLIENT_HELLO, shaping=wish).encode(3)
    yield "hellos", "exit-hello-shaping", replace(protocol.EXIT_HELLO, shaping=wish).encode(3)
    up, keys, nonce = Direction.UPSTREAM, protocol.SESSION_KEYS, protocol.NONCE
    yield "join_of_a_stranger", "token", encode_token_join(nonce, b"padding")
    yield "join_of_a_stranger", "request", encode_join(keys, up, 1, nonce, b"padding")
    yield "join_of_a_stranger", "reply", encode_join_reply(keys, up, 1, nonce, nonce, b"padding")
    yield "join_of_a_client", "numbers", bytes((3, 2, 1, 2, 64, 1, 0, 1, 0, 0, 0, 1, 1)) + nonce
    for index, payload in enumerate(_vectors("payloads")):
        yield "opening", f"vector-{index}", payload
    for index, run in enumerate(_vectors("runs")):
        yield "datagram_run", f"vector-{index}", run


def _vectors(name: str) -> Iterator[bytes]:
    """Every hexadecimal text of a file of vectors that is long enough to be a message."""
    seen = set()
    waiting = [json.loads((VECTORS / f"{name}.json").read_text())]
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, dict):
            waiting += [value for key, value in found.items() if key not in ("session_id", "host", "address")]
        elif isinstance(found, list):
            waiting += found
        elif isinstance(found, str) and found not in seen and len(found) >= 2:
            seen.add(found)
            try:
                message = bytes.fromhex(found)
            except ValueError:
                continue
            if len(message) <= 2048:
                yield message


def packet_seeds() -> Seeds:
    """What the host's kernel sends."""
    options = [("MSS", 1460), ("SAckOK", b""), ("WScale", 7), ("Timestamp", (1, 0))]
    syn = TCP(sport=40000, dport=80, flags="S", seq=0xFFFFFFF0, options=options)
    sack = TCP(sport=40000, dport=80, flags="A", seq=1, ack=1, options=[("SAck", (5, 9, 12, 20))])
    transports = {
        "syn": syn,
        "sack": sack,
        "data": TCP(sport=40000, dport=80, flags="PA", seq=1, ack=1) / Raw(b"GET / HTTP/1.1"),
        "fin": TCP(sport=40000, dport=80, flags="FA", seq=15, ack=1),
        "udp": UDP(sport=50000, dport=443) / Raw(b"hello"),
        "dns": UDP(sport=50001, dport=53) / Raw(_question("www.example")),
    }
    transport_targets = {"udp": "udp_datagram", "dns": "udp_datagram"}
    for name, transport in transports.items():
        for version, layer in enumerate((V4, V6)):
            packet = bytes(layer / transport)
            label = f"{name}-v{6 if version else 4}"
            yield "ip_packet", label, b"\0" + packet
            yield "flow_frame", label, vnet.PLAIN + packet
            target = transport_targets.get(name, "tcp_segment")
            yield target, label, bytes((version,)) + packet[40 if version else 20 :]
    pings = (
        bytes(V4 / ICMP(id=7, seq=1) / Raw(b"ping")),
        bytes(V6 / ICMPv6EchoRequest(id=7, seq=1, data=b"ping")),
    )
    for version, ping in enumerate(pings):
        label = f"ping-v{6 if version else 4}"
        yield "icmp_message", label, bytes((version,)) + ping[40 if version else 20 :]
        yield "ip_packet", label, b"\0" + ping
        yield "flow_frame", label, vnet.PLAIN + ping
    extended = bytes(
        V6
        / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0\0\0\0")])
        / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0\0\0\0")])
        / IPv6ExtHdrFragment(id=9)
        / transports["udp"]
    )
    yield "ip_packet", "extension-headers", b"\0" + extended
    yield "flow_frame", "extension-headers", vnet.PLAIN + extended
    yield "extension_headers", "three", b"\0" + extended[40:]
    yield "ip_packet", "options", b"\0" + bytes(IP(src="10.0.0.2", dst="198.51.100.2", options=[]) / syn)
    yield "vnet_header", "plain", vnet.PLAIN
    for name, kind in (
        ("tcp4", vnet.GSO_TCPV4),
        ("tcp6-ecn", vnet.GSO_TCPV6 | 0x80),
        ("udp", vnet.GSO_UDP_L4),
    ):
        yield "vnet_header", name, vnet.VnetHeader(1, kind, 40, 1460, 20, 16).encode()
    # how, offset in eights, length: two halves in order, two the other way round, an overlap
    yield "fragments", "two-v4", bytes.fromhex("12 0000 0010 10 0002 0008")
    yield "fragments", "two-v6-reversed", bytes.fromhex("11 0002 0009 13 0000 0010")
    yield "fragments", "overlap", bytes.fromhex("12 0000 0010 12 0001 0010 1a 0009 0008")


def _question(name: str, type_: str = "A", **header: int) -> bytes:
    record = DNSRecord(DNSHeader(id=1, rd=1, **header), [DNSQuestion(name, getattr(QTYPE, type_))])
    record.add_ar(EDNS0(udp_len=1232, flags="do"))
    return bytes(record.pack())


def dns_seeds() -> Seeds:
    """Questions and answers."""
    names = {
        "a": ("www.example", "A"),
        "aaaa": ("www.example", "AAAA"),
        "any": ("www.example", "ANY"),
        "host": ("router.example", "A"),
        "blocked": ("x.ads.example", "A"),
        "real": ("www.real.example", "A"),
        "ptr": ("1.0.18.198.in-addr.arpa", "PTR"),
        "localhost": ("localhost", "AAAA"),
    }
    for label, (name, type_) in names.items():
        for target in ("dns_query", "dns_service"):
            yield target, label, _question(name, type_)
    zone = (
        "www.example. 60 IN CNAME web.example.\n"
        "web.example. 300 IN A 192.0.2.7\n"
        "web.example. 300 IN A 192.0.2.8\n"
        "web.example. 300 IN AAAA 2001:db8::7\n"
    )
    asked = DNSRecord(DNSHeader(id=1, rd=1), [DNSQuestion("www.example", QTYPE.A)])
    answer = asked.reply()
    answer.add_answer(*RR.fromZone(zone))
    answer.add_ar(EDNS0(udp_len=1232))
    denial = asked.reply()
    denial.header.rcode = 3
    denial.add_auth(*RR.fromZone("example. 60 IN SOA ns.example. me.example. 1 3600 600 86400 30"))
    for label, reply in (("answer", answer), ("denial", denial)):
        for target in ("dns_answer", "dns_addresses"):
            yield target, label, bytes(reply.pack())
    yield "dns_addresses", "cut-short", b"\0\1"
    yield (
        "resolv_conf",
        "usual",
        b"# comment\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nsearch example\n",
    )


def config_seeds() -> Seeds:
    """The examples, and single values."""
    configs = REPOSITORY / "configs"
    yield "config_client", "example", (configs / "client.toml").read_bytes()
    yield "config_server", "example", (configs / "server.toml").read_bytes()
    key = b"L+V9o0fNYkMVKNqsX7spBzD/9oSvxM/C7ZCZX1jLO3Q="
    yield "config_client_entry", "entry", b'name = "a"\npublic_key = "' + key + b'"\nadded = 2026-01-31\n'
    huge = b"0x" + b"f" * 5000
    yield "config_client", "number-too-long-to-show", b"[tun]\nmtu = " + huge
    yield "config_client_entry", "number-too-long-for-a-date", b"added = " + huge
    yield "key_text", "key", key
    values = (
        "true", "5", "a", "laptop", "eth0", "250ms", "16MiB", key.decode(), "ab:" * 31 + "ab",
        "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----", "dir/file", "2026-01-31", "2001:db8::1",
        "10.0.0.0/8", "10.73.72.1/32", "www.b\u00fccher.example", "*.example.org", "example.org:443", "/path",
        "wss://a.example.org:8443/x?y", "http://user:pass@[2001:db8::1]:3128", "[::1]:9100",
        "a.example,b.example", "a.example,192.0.2.1",
    )  # fmt: skip
    for index, value in enumerate(values):
        yield "config_value", f"value-{index}", bytes((index,)) + value.encode()


def http_seeds() -> Seeds:
    """Requests and responses."""
    upgrade = (
        b"GET /x HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    path = "/" + base64.urlsafe_b64encode(bytes(range(18))).decode()
    invited = InvitedPath("wss://a.example.org" + path, bytes(32)), InvitedPath("wss://b.example.net/x", b"")
    yield (
        "invitation_link",
        "link",
        encode_link(Invitation("laptop", bytes(32), bytes(16), *invited)).encode(),
    )
    yield "http_head", "upgrade", pieces(upgrade[:20], upgrade[20:] + b"\x82\x00")
    yield "http_head", "response", pieces(b"HTTP/1.1 200 Connection established\r\n\r\n")
    blanks = b"GET / HTTP/1.1\r\nHost: a\r\nx:" + b" " * 16_000 + b"\0\r\n\r\n"
    yield "http_head", "blanks-before-a-zero", pieces(blanks)
    yield (
        "control_requests",
        "two",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nHEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    body = b"POST /v1/down HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    yield "control_requests", "chunked", body
    yield (
        "control_requests",
        "expect",
        b"POST /v1/down HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    )
    yield (
        "control_requests",
        "head-with-a-broken-chunk",
        b"HEAD /v1/down HTTP/0.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    )
    yield "control_requests", "bad-target", b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n"


def daemon_seeds() -> Seeds:
    """Commands to the daemon, and its memory of keepalive intervals."""

    def request(method: str, target: str, body: bytes = b"") -> bytes:
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    yield (
        "daemon_requests",
        "up",
        request("POST", "/v1/up", b'{"profile": "home"}') + request("POST", "/v1/down"),
    )
    yield "daemon_requests", "portal", request("POST", "/v1/portal", b'{"seconds": 60}')
    yield "daemon_requests", "adopt", request("POST", "/v1/programs", b'{"list": "excluded"}')
    yield "daemon_requests", "events", request("GET", "/v1/events?since=1&wait=0.5")
    yield (
        "daemon_requests",
        "profiles",
        request("GET", "/v1/profiles") + request("DELETE", "/v1/profiles/home"),
    )
    profile = (REPOSITORY / "configs" / "client.toml").read_bytes()
    yield "daemon_requests", "put", request("PUT", "/v1/profiles/home?replace=no", profile[:3000])
    yield "daemon_requests", "outside", request("PUT", "/v1/profiles/..%2f..%2fetc", b"x = 1")
    table = {"a.example.org": {"interval": 25.0, "survived": 25.0, "cut": 60.0, "cut_at": 999_999_000.0}}
    yield "learnt_intervals", "table", json.dumps(table).encode()
    yield "learnt_intervals", "nonsense", b'{"a": {"interval": 1e999}, "b": [], "c": {"interval": true}}'


def session_seeds() -> Seeds:
    """Scripts; see the steps in fuzz_targets/session.py."""
    served = "40 04 01 00 04 4000"  # OPEN of stream 1: TCP, served at once
    later = "40 04 01 00 03 4000"  # served when its user says so
    datagrams = "40 04 02 01 04 0000"
    credit = "40 01 01 010000"
    at_exit = {
        "data-and-fins": f"{served} 40 00 01 20 99 00 40 02 01 9b 00 1000 9d 00 {credit} 40 11 01 03 010000",
        "served-later": f"{later} 40 00 01 20 98 00 9b 00 0100 40 05 01 00",
        "out-of-order": f"{served} 42 08 01 02 05 08 01 01 05 00 01 05 99 00",
        "datagrams": f"{datagrams} 40 00 02 10 98 00 0020 9d 00",
        "leg-lost": f"{served} 9b 00 2000 d8 e0 e1 f5 ff ff",
        "goodbye": f"{served} 40 05 00 09",
        "keepalives": "40 43 00 07 40 03 00 01 fa fa",
        "refused": "40 04 01 00 02 0000 40 04 03 03 03 0000",
        "beyond-credit": f"{served} 40 40 01 ffff 40 40 01 ffff 40 40 01 ffff",
    }
    opened = "40 04 01 00010000 00"
    at_client = {
        "asked-and-served": f"d0 {opened} 9b 00 1000 {credit} 40 00 01 20 99 00 40 02 01 9d 00",
        "refused": "d0 40 05 01 01",
        "datagrams": "d1 40 04 01 00000000 98 00 0020 40 00 01 10 40 05 01 00",
        "leg-lost": f"d0 {opened} 9b 00 4000 d8 e0 e1 ff ff",
        "never-sent": f"d0 {opened} 40 11 01 40 010000",
        "goodbye": "d0 40 05 00 09",
    }
    for target, scripts in (
        ("session_at_exit", at_exit),
        ("session_at_client", at_client),
        ("shaped_session_at_exit", at_exit),
        ("shaped_session_at_client", at_client),
    ):
        for name, script in scripts.items():
            yield target, name, bytes.fromhex(script)


def flow_seeds() -> Seeds:
    """Scripts; see the steps in fuzz_targets/flow.py. The first byte says whether runs may be segmented."""
    syn = "28 40 14 020405b4 01030307 0402 0000 0000000000000000 ffff"
    opened = "a0 00"
    ack = "29 00 ffff"
    data = "2a 80 0400 ffff"
    fin = "2b 00 ffff"
    scripts = {
        "connection": f"00 {syn} {opened} {ack} {data} e8 a1 00 2000 29 00 ffff a4 00 {fin} 29 00 ffff f8",
        "refused": f"00 {syn} a5 00 02",
        "reset-by-host": f"00 {syn} {opened} {ack} 2c 00 0000",
        "out-of-order": f"00 {syn} {opened} {ack} 2a 88 0100 0200 ffff 2a 80 0100 ffff e8 {fin}",
        "closed-window": f"00 {syn} {opened} 29 00 0000 a1 00 2000 fa fa ff 29 00 ffff",
        "lost-segments": f"00 {syn} {opened} {ack} a1 00 8000 29 60 80 ffffff00 00 ffff fa fa ff ff",
        "dns-over-tcp": "00 28 02 ffff 29 02 ffff 2a 82 0100 ffff e8 2b 02 ffff f8",
        "udp": "01 80 05 0020 d0 00 0011 01 04 40 00 0050 0005 c6336402 68656c6c6f d7 00",
        "udp-error": "00 80 05 0020 d0 00 0010 02 04 04 04 0050 0000 c0000201 c6336402 ",
        "udp-error-about-nobody": "00 80 05 0020 d0 00 0010 02 04 04 04 0050 0000 c0000201 00000000",
        "udp-segments": "01 82 05 2000",
        "dns-by-udp": "00 81 1e" + _question("a.example").hex()[:60],
        "dns-by-udp-late": "00 81 03 010203 e5 0100",
        "ping": "00 90 07 01 0020 d0 00 000f 01 04 40 00 0001 0000 c6336402 706f6e",
        "fragments": "00 9a 05 10 0000 9a 05 00 0002 98 05 00 0003",
        "offline": f"00 e1 {syn} 80 05 0020 e0 {syn} e4",
    }
    for name, script in scripts.items():
        yield "flow_frames", name, bytes.fromhex(script)
    frame = vnet.PLAIN + bytes(V4 / TCP(sport=40000, dport=80, flags="S", options=[("MSS", 1460)]))
    yield "flow_frames", "raw-frame", b"\0\0" + pieces(frame) + b"\x20" + pieces(frame)


def proxy_seeds() -> Seeds:
    """Programs at a proxy, and a web server behind it."""
    name = b"\5\1\0\3\x0btarget.test\0\x50"
    yield "socks_program", "socks5-by-name", b"\0" + pieces(b"\5\1\0", name + b"early") + b"\0"
    yield "socks_program", "socks5-refused", b"\0" + pieces(b"\5\2\0\2" + name) + b"\3"
    yield "socks_program", "socks5-password", b"\1" + pieces(b"\5\1\2\1\5alice\4word", name) + b"\0"
    yield "socks_program", "socks5-wrong", b"\1" + pieces(b"\5\1\2", b"\1\3bob\4word")
    yield "socks_program", "socks5-by-ipv6", b"\0" + pieces(b"\5\1\0\5\1\0\4" + bytes(15) + b"\1\1\xbb")
    yield "socks_program", "socks5-datagrams", b"\0" + pieces(b"\5\1\0\5\3\0\1" + bytes(6))
    yield "socks_program", "socks4", b"\0" + pieces(b"\4\1\0\x50\xc6\x33\x64\2me\0")
    yield "socks_program", "socks4a", b"\0" + pieces(b"\4\1\0\x50\0\0\0\1me\0target.test\0")
    yield "socks_program", "http", b"\0" + pieces(b"GET / HTTP/1.1\r\n\r\n")
    yield "socks_datagram", "by-address", b"\0\0\0\1\xc6\x33\x64\2\0\x35question"
    yield "socks_datagram", "by-name", b"\0\0\0\3\x0btarget.test\0\x35question"
    yield "socks_datagram", "by-ipv6", b"\0\0\0\4" + bytes(15) + b"\1\0\x35question"
    host = b" HTTP/1.1\r\nHost: target.test\r\n"
    yield "http_program", "connect", b"\0" + pieces(b"CONNECT target.test:443" + host + b"\r\nearly") + b"\0"
    forwarded = b"GET http://u:p@target.test:80/a?b#c" + host + b"Connection: x-hop\r\nX-Hop: 1\r\n\r\n"
    yield "http_program", "forward", b"\0" + pieces(forwarded[:30], forwarded[30:])
    user = b"Proxy-Authorization: Basic YWxpY2U6d29yZA==\r\n\r\n"
    yield "http_program", "password", b"\1" + pieces(b"CONNECT [::1]:443" + host + user) + b"\2"
    length = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: 5\r\n\r\nhi"
    yield "http_answer", "length", b"\0" + pieces(length)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    yield "http_answer", "chunked", b"\0" + pieces(chunked[:50], chunked[50:])
    yield "http_answer", "until-the-end", b"\0" + pieces(b"HTTP/1.0 200 OK\r\n\r\nhi", b"")
    yield "http_answer", "head", b"\1" + pieces(length[:-2])
    yield "http_answer", "informational", b"\2" + pieces(b"HTTP/1.1 100 Continue\r\n\r\n" + length)


def main() -> None:
    """Write every seed again, except those that a fuzzer found."""
    assert len(HOST_V6) == len(SERVER_V6) == 16
    for seed in CORPUS.glob("*/*"):
        if not seed.name.startswith(FOUND):
            seed.unlink()
    count = 0
    for source in (
        protocol_seeds, packet_seeds, dns_seeds, config_seeds,
        http_seeds, proxy_seeds, daemon_seeds, session_seeds, flow_seeds,
    ):  # fmt: skip
        for target, name, seed in source():
            folder = CORPUS / target
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(seed)
            count += 1
    print(f"{count} seeds in {CORPUS.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
