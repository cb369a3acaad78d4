"""The request of a WebSocket upgrade, as a current browser sends it: same headers, same order.

Common rules of firewalls refuse upgrades without a User-Agent, and a request that no browser sends stands
out. Recorded from Chromium 156 on Linux.
"""

from __future__ import annotations

from collections.abc import Mapping

CHROMIUM_VERSION = 156
"""Major version that the User-Agent names; raise it with releases of ours."""

USER_AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    f"Chrome/{CHROMIUM_VERSION}.0.0.0 Safari/537.36"
)


def upgrade_headers(host: str, key: str, *, is_secure: bool, own: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers of the upgrade, in order. ``host`` is the Host header, ``key`` the Sec-WebSocket-Key.

    A header of ``own`` takes the place of the browser's of the same name, which an empty value removes; the
    others stand where a browser sends cookies.
    """
    browser = [
        ("Host", host),
        ("Connection", "Upgrade"),
        ("Pragma", "no-cache"),
        ("Cache-Control", "no-cache"),
        ("User-Agent", USER_AGENT),
        ("Upgrade", "websocket"),
        ("Origin", f"{'https' if is_secure else 'http'}://{host}"),
        ("Sec-WebSocket-Version", "13"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "en-US,en;q=0.9"),
    ]
    handshake = [
        ("Sec-WebSocket-Key", key),
        # What no exit agrees to: a record is encrypted, and does not get shorter.
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ]
    known = {name.lower() for name, _ in (*browser, *handshake)}
    replaced = {name.lower(): value for name, value in own.items()}
    further = [(name, value) for name, value in own.items() if name.lower() not in known]
    wanted = [
        *((name, replaced.get(name.lower(), value)) for name, value in browser),
        *further,
        *((name, replaced.get(name.lower(), value)) for name, value in handshake),
    ]
    return [(name, value) for name, value in wanted if value]
