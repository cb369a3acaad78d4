"""The upgrade's headers are those that a browser sends, in its order."""

from __future__ import annotations

from halftunnel_vpn.transport.browser_request import CHROMIUM_VERSION, upgrade_headers

KEY = "TpYq1RBL7mVsQSFLKqtCYA=="

RECORDED = """\
Host: 127.0.0.1:46449
Connection: Upgrade
Pragma: no-cache
Cache-Control: no-cache
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36
Upgrade: websocket
Origin: http://127.0.0.1:46449
Sec-WebSocket-Version: 13
Accept-Encoding: gzip, deflate, br, zstd
Accept-Language: en-US,en;q=0.9
Sec-WebSocket-Key: TpYq1RBL7mVsQSFLKqtCYA==
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits
"""  # noqa: E501
"""What Chromium 156.0.8078.108 sent for `new WebSocket(...)`, without its window ("Headless" left out)."""


def text(headers):
    return "".join(f"{name}: {value}\n" for name, value in headers)


def test_it_is_what_chromium_sends():
    made = upgrade_headers("127.0.0.1:46449", KEY, is_secure=False, own={})
    assert text(made) == RECORDED.replace("156", str(CHROMIUM_VERSION))


def test_over_tls_the_origin_is_https():
    assert ("Origin", "https://a.example") in upgrade_headers("a.example", KEY, is_secure=True, own={})


def test_headers_of_ones_own_replace_remove_and_join():
    own = {"USER-AGENT": "mine", "origin": "", "X-Token": "secret", "X-Empty": ""}
    made = upgrade_headers("a.example", KEY, is_secure=True, own=own)
    names = [name for name, _ in made]
    assert dict(made)["User-Agent"] == "mine" and "Origin" not in names and "X-Empty" not in names
    assert names[names.index("X-Token") + 1] == "Sec-WebSocket-Key"
