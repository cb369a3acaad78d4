"""What SYN and SYN-ACK negotiate for a connection (RFC 9293, 3.7.1; RFC 7323, 2; RFC 2018, 2)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from halftunnel_vpn.flow.tcp.endpoint_config import TcpEndpointConfig
from halftunnel_vpn.inet.ip import IPV4_HEADER_LENGTH, MAX_PACKET
from halftunnel_vpn.inet.tcp import HEADER_LENGTH, HeaderTemplate, TcpSegment, encode_options

DEFAULT_MSS_V4: Final = 536
DEFAULT_MSS_V6: Final = 1220
"""The segment size of a host that announces none (RFC 9293, 3.7.1)."""

MINIMUM_MSS: Final = 88
"""A host that announces less gets segments of this size: smaller ones only serve an attack on us."""


class NegotiatedOptions(NamedTuple):
    """Sizes are in bytes of TCP text. ``peer_shift`` scales the host's window field, ``own_shift`` ours."""

    mss: int
    frame_limit: int
    """The most bytes of text and options in a frame."""
    peer_shift: int
    own_shift: int
    sack: bool
    options: bytes
    """The encoded options of our SYN-ACK."""


def negotiate(syn: TcpSegment, template: HeaderTemplate, config: TcpEndpointConfig) -> NegotiatedOptions:
    """Negotiate the host's ``syn`` with our ``config``. The IP version is that of ``template``."""
    headers = template.length
    is_v4 = headers == IPV4_HEADER_LENGTH + HEADER_LENGTH
    mss = syn.mss if syn.mss is not None else DEFAULT_MSS_V4 if is_v4 else DEFAULT_MSS_V6
    scaling = syn.window_scale is not None
    own_mss = config.mss_v4 if is_v4 else config.mss_v6
    return NegotiatedOptions(
        mss=max(mss, MINIMUM_MSS),
        frame_limit=MAX_PACKET - headers,
        peer_shift=syn.window_scale or 0,
        own_shift=config.window_scale if scaling else 0,
        sack=syn.sack_permitted,
        options=_options(own_mss, config.window_scale if scaling else None, syn.sack_permitted),
    )


@lru_cache(maxsize=64)
def _options(mss: int, window_scale: int | None, sack_permitted: bool) -> bytes:
    return encode_options(mss, window_scale, sack_permitted)
