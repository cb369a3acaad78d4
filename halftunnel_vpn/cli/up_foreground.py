"""`htvpn up --foreground`: be the client of this host. It asks no daemon, and imports nothing that does."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from halftunnel_vpn.config.client import ClientProfile


def run(options: Namespace) -> int:
    """Connect until SIGINT, SIGTERM or `htvpn down`."""
    from halftunnel_vpn.cli import process_options, profiles

    metrics = process_options.metrics_endpoint(options)
    load = profiles.reader(options.profile)

    def read() -> ClientProfile:
        profile = load()
        if options.socket is None:
            return profile
        return dataclasses.replace(
            profile, control=dataclasses.replace(profile.control, socket=options.socket)
        )

    profile = read()
    process_options.start_log(options, profile.log)
    from halftunnel_vpn.client.exits.exit_ranking import ExitChoice
    from halftunnel_vpn.client.main import run_client
    from halftunnel_vpn.proxy.beside_tunnel import proxy_beside_tunnel

    return run_client(
        profile,
        read,
        metrics=metrics or profile.metrics.listen,
        make_proxy=proxy_beside_tunnel,
        choice=ExitChoice(options.exit, options.fastest),
    )
