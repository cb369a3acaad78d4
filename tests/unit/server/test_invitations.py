"""Who is admitted by an invitation: room on the list is asked for before the invitation is used up."""

from __future__ import annotations

from halftunnel_vpn.config import writing
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.handshake_payloads import ExitStatus
from halftunnel_vpn.protocol.invitation import SECRET_LENGTH, digest
from halftunnel_vpn.server.client_list import ClientList
from halftunnel_vpn.server.invitations import Invitations

SECRET = bytes(SECRET_LENGTH)
OLD, NEW = bytes([1]) * 32, bytes([2]) * 32
TEXT = 'name = "zoe"\npublic_key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="\nadded = "2026-01-01"\n'


def test_an_invited_client_takes_nobodys_place_on_a_full_list(tmp_path):
    for name in ("clients", "invitations"):
        (tmp_path / name).mkdir()
    (tmp_path / "clients" / "zoe.toml").write_text(TEXT)
    kept = tmp_path / "invitations" / f"{digest(SECRET)}.toml"
    kept.write_text(writing.render({"name": "adam", "expires": 2000, "used": False}))
    counters = Counters()
    clients = ClientList(tmp_path / "clients", limit=1, changed=lambda: None)
    clients.refresh()
    invitations = Invitations(
        tmp_path,
        lambda: 1000.0,
        counters,
        admitted=clients.refresh,
        has_room=lambda: clients.has_room,
    )
    assert invitations.admit(NEW, SECRET) is ExitStatus.OVERLOADED
    assert counters.dropped == {"invitation-list-full": 1}
    assert (clients.listed(OLD), clients.listed(NEW)) == ("zoe", None)
    clients.set_limit(2)
    assert invitations.admit(NEW, SECRET) is ExitStatus.OK, "it is still good"
    assert (clients.listed(OLD), clients.listed(NEW)) == ("zoe", "adam")
