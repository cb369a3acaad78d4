"""The certificate of an exit's two domains, for web servers that stand before it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from halftunnel_vpn.protocol.certificates import make_authority, make_server_certificate
from lab.topology import DOMAIN_A, DOMAIN_B


def make_certificate(path: Path) -> str:
    """Write a certificate for both domains, with its key, to ``path``; the authority that signed it, PEM."""
    now = datetime.now(UTC)
    began, ends = now - timedelta(days=1), now + timedelta(days=1)
    root = make_authority("an authority of the lab", not_before=began, not_after=ends)
    made = make_server_certificate(root, [DOMAIN_A, DOMAIN_B], not_before=began, not_after=ends)
    path.write_bytes(made.certificate + made.private_key)
    return root.certificate.decode()
