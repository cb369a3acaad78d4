"""The nameservers of a resolv.conf."""

from __future__ import annotations

from halftunnel_vpn.dns.upstream import parse_resolv_conf

TEXT = """\
# nameserver 192.0.2.1
; nameserver 192.0.2.2
search example.org
nameserver 192.0.2.3
\tnameserver   2001:db8::1  # the second
nameserver fe80::1%eth0
nameserver
nameserver ns.example.org
nameservers 192.0.2.4
options edns0
nameserver 192.0.2.5
"""


def test_nameservers_are_found_in_their_order_and_only_three() -> None:
    assert parse_resolv_conf(TEXT) == [("192.0.2.3", 53), ("2001:db8::1", 53), ("fe80::1%eth0", 53)]


def test_a_file_that_names_none_yields_none() -> None:
    assert parse_resolv_conf("") == []
    assert parse_resolv_conf("options rotate\n\x00\xff\n") == []
