"""`htvpn up`: this host, through the tunnel."""

from __future__ import annotations

import dataclasses
from argparse import Namespace

from halftunnel_vpn.cli import process, profiles
from halftunnel_vpn.errors import HostError


def run(options: Namespace) -> int:
    """Connect, and stay until SIGINT, SIGTERM or `htvpn down`."""
    metrics = process.metrics_endpoint(options)
    if not options.foreground:
        raise HostError("this version has no background daemon; add --foreground, and leave it running")
    profile = profiles.load(profiles.find(options.profile))
    if options.socket is not None:
        control = dataclasses.replace(profile.control, socket=options.socket)
        profile = dataclasses.replace(profile, control=control)
    process.start_log(options, profile.log)
    from halftunnel_vpn.client.main import run_client

    return run_client(profile, metrics=metrics)
