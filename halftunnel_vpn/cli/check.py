"""`htvpn check`: find out what keeps this host from its exit, a line for each finding."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from dataclasses import asdict

from halftunnel_vpn.cli import profiles
from halftunnel_vpn.client.diagnosis import exit_check
from halftunnel_vpn.client.diagnosis.finding import Finding, Outcome, failed, ok, skipped
from halftunnel_vpn.client.diagnosis.host_check import check_host, check_other_vpns
from halftunnel_vpn.client.diagnosis.path_check import check_exits
from halftunnel_vpn.client.diagnosis.tunnel_check import check_dns, check_kill_switch, check_status
from halftunnel_vpn.control import requests
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.errors import HalfTunnelError
from halftunnel_vpn.host.record.journal import state_directory
from halftunnel_vpn.transport.name_lookup import look_up


def run(options: Namespace) -> int:
    """Print the findings. Exit code 1 if one failed."""
    findings = asyncio.run(diagnose(options))
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            print(f"{finding.outcome:8} {finding.subject}: {finding.text}")
    return int(any(finding.outcome is Outcome.FAILED for finding in findings))


async def diagnose(options: Namespace) -> list[Finding]:
    """Return the findings about a running tunnel, or else about the profile, this host and the paths."""
    try:
        status = requests.read_status(options.socket)
    except HalfTunnelError as error:
        return [failed("daemon", str(error))]
    if status is not None and status["state"] != TunnelState.DISCONNECTED:
        own = filter(None, [status.get("device")])
        dns = await check_dns(lambda: requests.read_status(options.socket), look_up)
        found = [*check_status(status), dns, check_other_vpns(own)]
        if status["state"] == TunnelState.CONNECTED:
            found += await exit_check.check_addresses()
            found += await exit_check.check_speed() if options.speed else ()
        return found
    found = check_host(state_directory())
    if status is not None and status["protection"]["active"]:
        found.append(check_kill_switch(status["protection"]))
    try:
        profile = profiles.user_reader(options.profile)()
    except HalfTunnelError as error:
        return [failed("profile", str(error)), *found, skipped("paths", "not tried without a profile")]
    found = [ok("profile", f"{profile.name} is valid"), *found, *await check_exits(profile)]
    if options.speed:
        found.append(skipped("speed", "not measured: run `htvpn up` first"))
    return found
