"""`htvpn server invite`: a link from which a client makes its own profile."""

from __future__ import annotations

import contextlib
import sys
import time
from argparse import Namespace

from halftunnel_vpn.cli import server_directory, server_replicas
from halftunnel_vpn.config.clients import checked_name
from halftunnel_vpn.control import qr_code
from halftunnel_vpn.server.invitation_maker import make_invitation, seconds_of


def run(options: Namespace) -> int:
    """Print the link; with --qr also its code. The link admits one client, once."""
    name = checked_name(options.name)
    seconds = seconds_of(options.expires)
    with contextlib.ExitStack() as opened:
        directory = server_replicas.open_for(name, options, opened)[0]
        config = server_directory.read_configuration(directory)
        link = make_invitation(directory, config, name, seconds=seconds, now=int(time.time()))
    if options.output is not None:
        qr_code.write_image(link, options.output)
    print(link)
    if options.qr:
        sys.stdout.write(qr_code.for_terminal(link))
    print(
        f"It is good for {options.expires}, once. On the client run `htvpn join -` and paste it there: other "
        "users of a host can see arguments.",
        file=sys.stderr,
    )
    return 0
