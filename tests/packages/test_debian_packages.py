"""The Debian packages on a fresh machine: install, upgrade under a kill switch, remove, purge.

Each test goes on from the last.
"""

from __future__ import annotations

import re

import pytest
from lab.topology import LAN_RESOLVER

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

PING = f"ping -c1 -W2 {LAN_RESOLVER}"


def test_the_packages_install_without_anything_that_a_minimal_host_lacks(host):
    machine = host.machine
    machine.run(PING)
    machine.run("dpkg -i /root/1/*.deb", timeout=180)
    assert re.fullmatch(r"htvpn \d+\.\d+\.\d+\S*\n", machine.run("htvpn --version").stdout)
    assert machine.run("systemctl is-enabled halftunnel.socket halftunnel-lockdown.service").stdout == (
        "enabled\nenabled\n"
    )
    assert machine.run("systemctl is-enabled halftunnel-server.service", check=False).stdout == "disabled\n"
    assert machine.run("stat -c '%a %U:%G' /run/halftunnel/control.sock").stdout == "660 root:halftunnel\n"
    assert machine.run("htvpn status", check=False).returncode == 3
    assert machine.run("systemctl is-active halftunnel.service").stdout == "active\n"
    verified = machine.run("systemd-analyze verify /usr/lib/systemd/system/halftunnel*", check=False)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_manual_pages_completion_and_examples_are_where_they_are_looked_for(host):
    listed = set(host.machine.run("dpkg -L halftunnel-vpn").stdout.splitlines())
    assert {
        "/usr/share/man/man1/htvpn.1.gz", "/usr/share/man/man5/halftunnel-profile.5.gz",
        "/usr/share/man/man5/halftunnel-server.5.gz", "/usr/share/bash-completion/completions/htvpn",
        "/usr/share/zsh/vendor-completions/_htvpn", "/usr/share/fish/vendor_completions.d/htvpn.fish",
        "/usr/lib/systemd/user/halftunnel-proxy.service",
        "/usr/lib/halftunnel/site/halftunnel_vpn/share/web/index.html",
        "/usr/lib/halftunnel/site/halftunnel_vpn/share/web/app.js",
    } <= listed  # fmt: skip
    machine = host.machine
    assert "kill_switch" in machine.run("cat /usr/share/doc/halftunnel-vpn/examples/client.toml").stdout
    page = machine.run("zcat /usr/share/man/man1/htvpn.1.gz").stdout
    assert page.startswith(".TH HTVPN 1 ") and ".SS htvpn server add\\-client" in page
    assert "status" in machine.run("htvpn __complete -- st").stdout


def test_an_installed_package_names_itself_and_not_a_source_tree(host):
    machine = host.machine
    refused = machine.run("htvpn install client", check=False)
    assert (
        refused.stderr == "htvpn: this program came as a Debian package: run apt install halftunnel-client\n"
    )
    assert "source tree" not in machine.run("htvpn config example client").stdout


def test_an_exit_runs_from_its_package(host):
    machine = host.machine
    machine.run(
        "htvpn server init --dir /var/lib/halftunnel-server --upstream wss://127.0.0.1:4431 "
        "--downstream wss://127.0.0.1:4432"
    )
    machine.run("systemctl enable --now halftunnel-server")
    machine.wait_until("ss -tln | grep -q :4431")
    machine.run("htvpn server add-client host --dir /var/lib/halftunnel-server --output /root/profile")
    completed = machine.run("htvpn __complete -- server remove-client ''").stdout
    assert completed == "host\ta client\n"


def test_the_kill_switch_holds_across_an_upgrade(host):
    machine = host.machine
    machine.run("printf '\\n[protection]\\nkill_switch = \"on\"\\nallow_lan = false\\n' >>/root/profile")
    machine.run("htvpn profile add host /root/profile && systemctl enable halftunnel.service")
    machine.run("htvpn up host", check=False, timeout=120)
    assert machine.run(PING, check=False).returncode != 0
    daemon = machine.run("systemctl show -P MainPID halftunnel.service").stdout
    exit_ = machine.run("systemctl show -P MainPID halftunnel-server.service").stdout
    machine.run(f"systemd-run --quiet --unit=watch sh -c 'exec ping -i 0.02 {LAN_RESOLVER} >/run/watch 2>&1'")
    machine.run("dpkg -i /root/2/*.deb", timeout=180)
    machine.wait_until("systemctl is-active halftunnel.service")
    assert machine.run(PING, check=False).returncode != 0
    machine.run("systemctl kill --signal=INT watch; while systemctl -q is-active watch; do sleep 0.05; done")
    counted = machine.run("tail -n 3 /run/watch").stdout
    sent, received = re.search(r"(\d+) packets transmitted, (\d+) received", counted).groups()
    assert int(sent) > 50 and int(received) == 0, counted
    assert machine.run("systemctl show -P MainPID halftunnel.service").stdout != daemon, "the old program"
    assert machine.run("systemctl show -P MainPID halftunnel-server.service").stdout != exit_
    assert machine.run("dpkg-query -W -f '${Version} ${Status}\\n' 'halftunnel-*'").stdout == (
        "0.1.0-2 install ok installed\n" * 3
    )
    assert machine.run("htvpn profile list").stdout == "* host\n"


def test_removal_lifts_the_kill_switch_and_keeps_profiles_and_keys(host):
    machine = host.machine
    machine.run("dpkg -r halftunnel-client halftunnel-server", timeout=180)
    machine.run(PING)
    assert machine.run("nft list tables").stdout == ""
    machine.run(
        "test -e /etc/halftunnel/profiles/host.toml && test -e /var/lib/halftunnel-server/server.toml"
    )
    active = "systemctl list-units --state=active,activating,failed --no-legend 'halftunnel*'"
    assert machine.run(active).stdout == ""


def test_a_package_does_not_go_under_units_of_another_installation(host):
    """Those in /etc would stay in front of its own."""
    machine = host.machine
    machine.run("touch /etc/systemd/system/halftunnel.service")
    refused = machine.run("dpkg -i /root/1/halftunnel-client_*.deb", check=False)
    machine.run("rm /etc/systemd/system/halftunnel.service")
    assert refused.returncode == 1
    assert "run 'htvpn uninstall --keep-configuration' first; profiles and keys stay" in refused.stderr


def test_a_purge_leaves_the_host_as_it_was(host):
    machine = host.machine
    machine.run(
        "dpkg -P halftunnel-client halftunnel-server halftunnel-vpn && rm -r /root/1 /root/2 /root/profile"
    )
    after = host.files()
    ignored = re.compile(r"var/lib/dpkg/|var/log/|var/lib/systemd|usr/share/man/|var/cache/")
    changed = {
        path: (host.before.get(path), after.get(path))
        for path in host.before.keys() | after.keys()
        if host.before.get(path) != after.get(path) and not ignored.match(path)
    }
    assert changed == {}
    assert machine.run("getent group halftunnel halftunnel-exit", check=False).stdout == ""
