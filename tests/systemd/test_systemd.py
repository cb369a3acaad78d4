"""The daemon and the exit under a real systemd, as a host lives: each test goes on from the last."""

from __future__ import annotations

import json
import re
import time

import pytest
from lab.topology import CLIENT, EXIT_A, LAN_RESOLVER

from halftunnel_vpn.config.shared import DEFAULT_NICE
from halftunnel_vpn.host.host_state import DEFAULT_MARK

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

DAEMON_BOUND, EXIT_BOUND = 4.5, 2.0
"""`systemd-analyze security`: the exposure that each unit may have at most."""


def exposure(machine, unit):
    """The overall exposure of a unit, 0 to 10."""
    text = machine.run(f"systemd-analyze security --no-pager {unit}", check=False).stdout
    found = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", text)[1])
    print(f"systemd-analyze security {unit}: {found}")
    return found


def journal(machine, unit, *words):
    """The journal's entries of a unit, as objects."""
    text = machine.run(f"journalctl -u {unit} -o json --no-pager {' '.join(words)}").stdout
    return [json.loads(line) for line in text.splitlines()]


def restarts(machine):
    return int(machine.run("systemctl show -P NRestarts halftunnel.service").stdout)


def nice(machine, unit):
    """The priority that a unit's process really has."""
    pid = machine.run(f"systemctl show -P MainPID {unit}").stdout.strip()
    return int(machine.run(f"cat /proc/{pid}/stat").stdout.rpartition(")")[2].split()[16])


def wait_connected(machine):
    machine.wait_until('htvpn status --json | grep -q \'"state": "connected"\'')


# --- installed ------------------------------------------------------------------------------------


def test_after_installation_there_is_a_socket_and_nothing_runs(site, client):
    assert client.run("stat -c '%a %U:%G' /run/halftunnel/control.sock").stdout == "660 root:halftunnel\n"
    assert client.run("systemctl is-active halftunnel.service", check=False).stdout == "inactive\n"
    assert client.run("systemctl is-enabled halftunnel.socket halftunnel-lockdown.service").stdout == (
        "enabled\nenabled\n"
    )
    assert client.run("systemctl --failed --no-legend").stdout == ""


def test_units_are_hardened_as_far_as_they_can_go(site, client, exit_machine):
    assert exposure(client, "halftunnel.service") < DAEMON_BOUND
    assert exposure(client, "halftunnel-lockdown.service") < DAEMON_BOUND
    assert exposure(exit_machine, "halftunnel-server.service") < EXIT_BOUND
    for machine, units in ((client, "halftunnel*"), (exit_machine, "halftunnel-server.service")):
        done = machine.run(f"systemd-analyze verify /etc/systemd/system/{units}", check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


SHADOW = "/proc/sys/net"
"""Settings that a machine shares with its host, which a test must not change: others are put in front."""


@pytest.mark.parametrize(
    ("buffer", "allowed", "buffer_after", "allowed_after"),
    [
        (212992, "reno cubic", 8388608, "reno cubic bbr"),
        (16777216, "bbr cubic", 16777216, "bbr cubic"),
    ],
)
def test_the_unit_of_the_exit_permits_bbr_and_large_buffers_and_takes_nothing_away(
    site, exit_machine, buffer, allowed, buffer_after, allowed_after
):
    size, names = f"{SHADOW}/core/wmem_max", f"{SHADOW}/ipv4/tcp_allowed_congestion_control"
    exit_machine.run(
        f"mount -t tmpfs tmpfs {SHADOW} && mkdir {SHADOW}/core {SHADOW}/ipv4 && "
        f"echo {buffer} >{size} && echo '{allowed}' >{names}"
    )
    try:
        exit_machine.run("systemctl restart halftunnel-server.service")
        assert exit_machine.run(f"cat {size} {names}").stdout.splitlines() == [
            str(buffer_after),
            allowed_after,
        ]
    finally:
        exit_machine.run(f"umount {SHADOW}")
    pre = exit_machine.run("systemctl show -P ExecStartPre halftunnel-server.service").stdout
    assert "status=0" in pre
    exit_machine.wait_until("ss -tln | grep -q :443")


def test_the_first_question_starts_the_daemon_and_strangers_get_no_answer(site, client):
    client.run("usermod -aG halftunnel member")
    stranger = client.run("htvpn status", user="stranger", check=False)
    assert stranger.returncode == 1 and "only root and members of the group halftunnel" in stranger.stderr
    assert client.run("systemctl is-active halftunnel.service", check=False).stdout == "inactive\n"
    member = client.run("htvpn status", user="member", check=False)
    assert (member.returncode, member.stdout.splitlines()[0][:24]) == (3, "state       disconnected")
    assert client.run("systemctl is-active halftunnel.service").stdout == "active\n"
    assert client.run("systemctl show -P Type,NotifyAccess halftunnel.service").stdout.split() == [
        "notify",
        "main",
    ]
    root = client.run("htvpn status", check=False)
    assert root.returncode == 3
    # A process that gets past the file's mode is still refused by its credentials.
    client.run("chmod 666 /run/halftunnel/control.sock")
    stranger = client.run("htvpn status", user="stranger", check=False)
    assert stranger.returncode == 1
    assert stranger.stderr == "htvpn: only root and members of the group halftunnel may use htvpn here\n"
    client.run("chmod 660 /run/halftunnel/control.sock")


# --- up -------------------------------------------------------------------------------------------


def test_up_connects_the_host_and_points_resolved_to_the_tunnel(site, client, status_problems):
    client.run("systemctl stop halftunnel.service")
    assert site.reach(check=False) == "0"
    resolved = client.run("resolvectl dns").stdout
    client.run("htvpn profile add lab -", input=site.profile)
    began = time.monotonic()
    up = client.run("htvpn up lab")
    site.figures["htvpn up, daemon down, until connected"] = time.monotonic() - began
    assert up.stdout.startswith("connected, profile lab, device htvpn0")
    site.reach()
    assert "htvpn0" in client.run("resolvectl dns").stdout
    assert "~." in client.run("resolvectl domain htvpn0").stdout
    assert "yes" in client.run("resolvectl default-route htvpn0").stdout
    # The LAN's resolver would answer with an address of its own.
    assert "198.51.100.2" in client.run("resolvectl query target.test").stdout
    site.resolved_before = resolved
    status = site.status()
    assert status_problems(status) == []
    assert (status["state"], status["profile"], status["dns"]["backend"]) == ("connected", "lab", "resolved")
    assert status["upstream"]["open_legs"][0]["address"] == EXIT_A
    assert nice(client, "halftunnel.service") == DEFAULT_NICE
    assert client.run("systemctl show -P StatusText halftunnel.service").stdout.startswith("connected")


def test_the_exit_reloads_under_the_tunnel_and_refuses_a_wrong_file(site, client, exit_machine):
    unit, config = "halftunnel-server.service", "/var/lib/halftunnel-server/server.toml"
    pid = exit_machine.run(f"systemctl show -P MainPID {unit}").stdout
    legs = [leg["address"] for leg in site.status()["upstream"]["open_legs"]]
    exit_machine.run(f"systemctl reload {unit}")
    exit_machine.wait_until(f"journalctl -u {unit} | grep -q 'all files were read again'")
    exit_machine.run(f"cp {config} /tmp/kept && echo '[wrong' >>{config}")
    refused = exit_machine.run(f"systemctl reload {unit}", check=False)
    exit_machine.run(f"cat /tmp/kept >{config}")
    assert refused.returncode == 1
    assert "server.toml" in exit_machine.run(f"journalctl -u {unit} | grep 'htvpn: '").stdout
    assert exit_machine.run(f"systemctl show -P MainPID,ActiveState {unit}").stdout.split() == [
        pid.strip(),
        "active",
    ]
    site.reach()
    assert [leg["address"] for leg in site.status()["upstream"]["open_legs"]] == legs


def test_a_member_of_the_group_commands_the_daemon(site, client):
    assert client.run("htvpn reconnect", user="member").returncode == 0
    wait_connected(client)
    listed = client.run("htvpn profile list", user="member").stdout
    assert listed == "* lab\n"
    assert "connected" in client.run("htvpn logs", user="member").stdout
    refused = client.run("htvpn down", user="stranger", check=False)
    assert refused.returncode == 1 and site.status()["state"] == "connected"


def test_the_journal_has_fields_and_nothing_private(site, client):
    entries = journal(client, "halftunnel.service")
    ours = [entry for entry in entries if entry.get("LOGGER", "").startswith("halftunnel_vpn.")]
    established = [entry for entry in ours if entry["MESSAGE"] == "session established"]
    assert established and all(entry["SYSLOG_IDENTIFIER"] == "halftunnel" for entry in ours)
    first = established[0]
    assert first["SESSION"] == "1" and first["PRIORITY"] == "6" and first["CORRELATION_ID"]
    at_exit = journal(site.exit, "halftunnel-server.service")
    opened = [json.loads(entry["MESSAGE"]) for entry in at_exit if "session opened" in entry["MESSAGE"]]
    assert first.get("ID", first["CORRELATION_ID"]) in {entry["id"] for entry in opened}
    text = json.dumps([entry["MESSAGE"] for entry in (*ours, *at_exit)])
    private_key = re.search(r'private_key = "(.*)"', site.profile)[1]
    for secret in ("198.51.100.2", "target.test", "small.txt", private_key):
        assert secret not in text


def test_reload_reads_the_profile_again_and_the_tunnel_stays(site, client):
    session = site.status()["session"]
    client.run("systemctl reload halftunnel.service")
    client.run("htvpn reload")
    status = site.status()
    assert (status["state"], status["session"]) == ("connected", session)
    site.reach()


def test_an_excluded_program_leaves_outside_the_tunnel_and_others_do_not(site, client):
    # Outside there is no way to the target: the lab's exit forwards nothing.
    ping = "ping -c1 -W3 198.51.100.2"
    client.run(ping)
    excluded = client.run(f"htvpn exclude -- {ping}", user="root", check=False)
    assert "htvpn:" not in excluded.stderr, "the hardened daemon may load its program and move others"
    assert excluded.returncode == 1 and "100% packet loss" in excluded.stdout
    client.run(ping)


def test_another_program_of_root_may_not_use_the_mark_of_our_legs(site, client):
    """As one in a container on the host's network: with the mark it would leave outside, to no target."""
    assert "socket cgroupv2" in client.run("nft list chain inet halftunnel mark_owners").stdout
    outside = 'ip daddr 198.51.100.2 oifname != "htvpn0" counter'
    client.run("nft add table inet seen")
    client.run("nft 'add chain inet seen last { type filter hook postrouting priority 300; }'")
    client.run(f"nft 'add rule inet seen last {outside}'")
    client.run(f"ping -m {DEFAULT_MARK} -c1 -W1 198.51.100.2", check=False)
    seen = client.run("nft list table inet seen").stdout
    client.run("nft delete table inet seen")
    assert "counter packets 0 " in seen, seen


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_killed_daemon_comes_back_and_connects_again(site, client):
    pid = site.main_pid()
    before = restarts(client)
    client.run(f"kill -9 {pid}")
    client.wait_until(f"test $(systemctl show -P NRestarts halftunnel.service) -gt {before}")
    wait_connected(client)
    assert site.main_pid() != pid
    site.reach()


def test_a_daemon_that_hangs_is_restarted_by_the_watchdog(site, client):
    client.run(
        "mkdir -p /run/systemd/system/halftunnel.service.d && "
        "printf '[Service]\\nWatchdogSec=3\\n' >/run/systemd/system/halftunnel.service.d/quick.conf && "
        "systemctl daemon-reload && systemctl restart halftunnel.service"
    )
    wait_connected(client)
    pid, before = site.main_pid(), restarts(client)
    client.run(f"kill -STOP {pid}")
    client.wait_until(f"test $(systemctl show -P NRestarts halftunnel.service) -gt {before}")
    wait_connected(client)
    assert site.main_pid() != pid
    client.run("journalctl -u halftunnel.service | grep -q 'Watchdog timeout'")
    client.run(
        "rm -r /run/systemd/system/halftunnel.service.d && systemctl daemon-reload && "
        "systemctl restart halftunnel.service"
    )
    wait_connected(client)
    site.reach()


# --- down -----------------------------------------------------------------------------------------


def test_down_puts_resolved_back_and_stop_leaves_nothing(site, client):
    assert client.run("htvpn down").stdout == "disconnected\n"
    assert client.run("resolvectl dns").stdout == site.resolved_before
    assert client.run("htvpn status", check=False).returncode == 3
    assert client.run("systemctl is-active halftunnel.service").stdout == "active\n"
    client.run("systemctl stop halftunnel.service")
    assert "htvpn0" not in client.run("ip link").stdout
    assert client.run("nft list tables").stdout == ""
    assert "18516" not in client.run("ip rule; ip -6 rule; ip route show table all").stdout
    assert client.run("systemctl show -P Result halftunnel.service").stdout == "success\n"


def test_the_kill_switch_always_stands_before_the_network_at_boot(site, client):
    profile = site.profile + '\n[protection]\nkill_switch = "always"\nallow_lan = false\n'
    client.run("htvpn profile add --replace lab -", input=profile)
    client.run("htvpn up lab")
    site.reach()
    down = client.run("htvpn down")
    assert "the kill switch stays on" in down.stdout
    client.power_off()
    # What a machine that is off has lost; the lab's namespace would keep it.
    site.lab.run(CLIENT, ["nft", "flush", "ruleset"])
    assert site.lab.run(CLIENT, ["ping", "-c1", "-W20", LAN_RESOLVER]).returncode == 0
    client.boot()
    assert client.run("systemctl is-active halftunnel-lockdown.service").stdout == "active\n"
    assert "halftunnel" in client.run("nft list tables").stdout
    order = client.run("systemctl show -P Before halftunnel-lockdown.service").stdout.split()
    assert "network-pre.target" in order
    assert client.run(f"ping -c1 -W2 {LAN_RESOLVER}", check=False).returncode != 0
    assert client.run("systemctl is-active halftunnel.service", check=False).stdout == "inactive\n"


def test_an_enabled_daemon_connects_at_boot_when_it_was_up(site, client):
    began = time.monotonic()
    client.run("systemctl enable --now halftunnel.service && htvpn up lab")
    site.figures["htvpn up, kill switch always, until connected"] = time.monotonic() - began
    client.power_off()
    site.lab.run(CLIENT, ["nft", "flush", "ruleset"])
    client.boot()
    wait_connected(client)
    site.reach()
    protection = site.status()["protection"]
    assert protection == {
        "kill_switch": "always", "active": True, "verified": True, "inbound": True,
    }  # fmt: skip


# --- the exit, and the end ------------------------------------------------------------------------


def test_a_member_of_the_group_sees_the_clients_of_the_exit(exit_machine):
    exit_machine.run("useradd -G halftunnel-exit warden && useradd passerby")
    table = exit_machine.run("htvpn server clients", user="warden").stdout
    assert table.startswith("CLIENT"), table
    assert "up for" in exit_machine.run("htvpn server status", user="warden").stdout
    refused = exit_machine.run("htvpn server clients", user="passerby", check=False)
    assert refused.returncode == 1, refused
    assert "members of the group halftunnel-exit may ask this exit" in refused.stderr
    # The exit itself has no rights on the daemon of a client.
    pid = exit_machine.run("systemctl show -P MainPID halftunnel-server.service").stdout.strip()
    groups = exit_machine.run(f"grep ^Groups: /proc/{pid}/status").stdout.split()[1:]
    names = {
        exit_machine.run(f"getent group {number} | cut -d: -f1", check=False).stdout.strip()
        for number in groups
    }
    assert "halftunnel-exit" in names and "halftunnel" not in names


def test_the_exit_ran_as_nobody_in_particular_and_stops_in_good_order(site, exit_machine):
    pid = exit_machine.run("systemctl show -P MainPID halftunnel-server.service").stdout.strip()
    status = exit_machine.run(f"cat /proc/{pid}/status").stdout
    uid = int(re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)[1])
    assert 61184 <= uid <= 65519, "a user of DynamicUser="
    effective = int(re.search(r"^CapEff:\s+(\w+)", status, re.MULTILINE)[1], 16)
    assert effective == 1 << 10, "CAP_NET_BIND_SERVICE alone"
    assert nice(exit_machine, "halftunnel-server.service") == DEFAULT_NICE
    assert exit_machine.run("ls -ld /var/lib/private/halftunnel-server").stdout.startswith("drwx------")
    drop_in = "/run/systemd/system/halftunnel-server.service.d"
    exit_machine.run(
        f"mkdir -p {drop_in} && printf '[Service]\\nWatchdogSec=3\\n' >{drop_in}/quick.conf && "
        "systemctl daemon-reload && systemctl restart halftunnel-server.service"
    )
    pid = exit_machine.run("systemctl show -P MainPID halftunnel-server.service").stdout.strip()
    exit_machine.run(f"kill -STOP {pid}")  # an exit that hangs is started again
    exit_machine.wait_until("test $(systemctl show -P NRestarts halftunnel-server.service) -gt 0")
    exit_machine.run(f"rm -r {drop_in} && systemctl daemon-reload")
    exit_machine.run("systemctl restart halftunnel-server.service")
    # A new session: the old one went with the old process.
    site.client.wait_until("curl -sS -m 5 http://198.51.100.2/small.txt | wc -c | grep -qx 1000")
    exit_machine.run("systemctl stop halftunnel-server.service")
    assert exit_machine.run("systemctl show -P Result halftunnel-server.service").stdout == "success\n"


def test_several_exits_on_one_machine_have_users_and_directories_of_their_own(exit_machine):
    names = ("one", "two")
    for number, name in enumerate(names):
        up, down = 9001 + 2 * number, 9002 + 2 * number
        exit_machine.run(
            f"htvpn server init --dir /var/lib/halftunnel-servers/{name} --upstream ws://127.0.0.1:{up} "
            f"--downstream ws://127.0.0.1:{down} && systemctl enable --now halftunnel-server@{name}"
        )
        exit_machine.wait_until(f"htvpn server status --dir /var/lib/halftunnel-servers/{name}")
    pids = [
        exit_machine.run(f"systemctl show -P MainPID halftunnel-server@{name}").stdout.strip()
        for name in names
    ]
    users = {exit_machine.run(f"stat -c %u /proc/{pid}").stdout.strip() for pid in pids}
    assert len(users) == 2 and all(61184 <= int(user) <= 65519 for user in users)
    exit_machine.run("systemctl restart halftunnel-server@one && systemctl reload halftunnel-server@two")
    assert exit_machine.run("systemctl show -P MainPID halftunnel-server@two").stdout.strip() == pids[1]


def test_uninstalling_leaves_the_machine_as_it_was(site, client, exit_machine):
    client.run("/opt/halftunnel/uninstall", timeout=120)
    after = site.files()
    changed = {
        path: (site.before.get(path), after.get(path))
        for path in site.before.keys() | after.keys()
        if site.before.get(path) != after.get(path)
    }
    assert changed == {}
    assert client.run("nft list tables; ls /run/halftunnel", check=False).stdout == ""
    assert client.run("systemctl list-units --all --no-legend 'halftunnel*'").stdout == ""
    assert client.run("getent group halftunnel", check=False).stdout == ""
    exit_machine.run("/opt/halftunnel/uninstall", timeout=120)
    assert (
        exit_machine.run("ls -d /opt/halftunnel /var/lib/*halftunnel* /var/lib/private/*", check=False).stdout
        == ""
    )
    assert exit_machine.run("systemctl list-units --all --no-legend 'halftunnel*'").stdout == ""
    assert exit_machine.run("find /etc/systemd/system -name 'halftunnel*'").stdout == ""
    assert exit_machine.run("systemctl list-units --all --no-legend 'halftunnel*'").stdout == ""
    assert exit_machine.run("find /etc/systemd/system -name 'halftunnel*'").stdout == ""
