"""Which connections others began, as /proc/net/tcp lists them."""

from __future__ import annotations

from pathlib import Path

from halftunnel_vpn.host.kernel.accepted import Accepted, accepted_connections
from halftunnel_vpn.host.kernel.inbound import elements

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(local: str, remote: str, state: str) -> str:
    return f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 1 1 0\n"


def test_a_connection_to_a_port_that_is_listened_on_was_accepted(tmp_path: Path) -> None:
    v4, v6 = tmp_path / "tcp", tmp_path / "tcp6"
    v4.write_text(
        HEAD
        + row("00000000:0016", "00000000:0000", "0A")
        + row("0202000A:0016", "097100CB:C350", "01")
        + row("0202000A:C351", "097100CB:01BB", "01")  # this host began it
        + row("0100007F:0016", "0100007F:C350", "01")
        + row("0202000A:0016", "097100CB:C352", "06")  # over
    )
    mapped = "0000000000000000FFFF00000202000A:0016"
    v6.write_text(HEAD + row(mapped, "0000000000000000FFFF0000097100CB:C353", "01"))
    found = accepted_connections((v4, v6, tmp_path / "missing"))
    assert found == [
        Accepted("10.0.2.2", 22, "203.0.113.9", 50000),
        Accepted("10.0.2.2", 22, "203.0.113.9", 50003),
    ]
    assert elements(found) == (
        "add element inet halftunnel inbound_tcp4 "
        "{ 10.0.2.2 . 22 . 203.0.113.9 . 50000, 10.0.2.2 . 22 . 203.0.113.9 . 50003 }\n"
    )
