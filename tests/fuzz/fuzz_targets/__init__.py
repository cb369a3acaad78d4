"""Fuzz targets: functions that take any bytes, and let no error out but a defect.

Every target knows which errors the parser behind it documents; it also checks what must hold of whatever the
parser accepts (that it encodes to the same bytes, that bounds are kept).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

Target = Callable[[bytes], None]

MODULES = {
    "protocol": (
        "wire_packet",
        "wire_train",
        "records",
        "handshake_at_exit",
        "handshake_at_client",
        "handshake_of_a_client",
        "hellos",
        "join_of_a_stranger",
        "join_of_a_client",
        "opening",
        "datagram_run",
        "invitation_link",
    ),
    "packet": (
        "vnet_header",
        "ip_packet",
        "extension_headers",
        "tcp_segment",
        "udp_datagram",
        "icmp_message",
        "fragments",
    ),
    "dns": ("dns_query", "dns_answer", "dns_addresses", "dns_service", "resolv_conf"),
    "config": ("config_client", "config_server", "config_client_entry", "config_value", "key_text"),
    "control": ("daemon_requests", "learnt_intervals"),
    "http": ("http_head", "control_requests"),
    "proxy": ("socks_program", "socks_datagram", "http_program", "http_answer"),
    "session": (
        "session_at_exit",
        "session_at_client",
        "shaped_session_at_exit",
        "shaped_session_at_client",
    ),
    "flow": ("flow_frames", "flow_frame"),
}
"""The targets of each module, which is imported when one of them is asked for: a fuzzer starts in no time."""

TARGETS = tuple(target for targets in MODULES.values() for target in targets)


def load(name: str) -> Target:
    """The target called ``name``."""
    module = next(module for module, targets in MODULES.items() if name in targets)
    target: Target = getattr(import_module(f"fuzz_targets.{module}"), name)
    return target
