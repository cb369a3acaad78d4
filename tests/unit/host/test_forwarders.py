"""Where a forwarder of this host hands its questions on to, from what forwarders and their keepers write."""

from __future__ import annotations

from pathlib import Path

import pytest

from halftunnel_vpn.host.resolver import forwarders
from halftunnel_vpn.host.resolver.forwarders import Search, is_forwarder


@pytest.fixture
def search(tmp_path, monkeypatch):
    """The servers found in files, each by its path without the first slash; no process runs."""
    monkeypatch.setattr(forwarders.resolv_conf_file, "processes_here", lambda command: [])

    def run(files: dict[str, str]) -> tuple[str, ...]:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Search(tmp_path).run()

    return run


@pytest.mark.parametrize(("server", "expected"), [("127.0.0.53", True), ("::1", True), ("192.0.2.1", False)])
def test_a_forwarder_is_a_program_of_this_host(server, expected):
    assert is_forwarder(server) is expected


def test_nothing_is_found_where_nothing_is(search):
    assert search({}) == ()


def test_dnsmasq_names_servers_and_files_that_name_them(search):
    found = search(
        {
            "etc/dnsmasq.conf": "no-resolv\nserver=192.0.2.1\n#server=192.0.2.99\n"
            "server = 192.0.2.2#53@eth0\nserver=/lan/192.0.2.98\nserver=192.0.2.97#5353\n"
            "resolv-file=/etc/upstream\nconf-dir=/etc/more/,*.c",
            "etc/upstream": "nameserver 192.0.2.3\nnameserver 127.0.0.1\n",
            "etc/more/a": "server=2001:db8::1\n",
        }
    )
    assert found == ("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1")


def test_options_on_the_command_line_of_a_dnsmasq_that_runs(search, tmp_path, monkeypatch):
    process = tmp_path / "proc" / "7"
    process.mkdir(parents=True)
    words = ["dnsmasq", "-k", "--server=192.0.2.1", "-S", "192.0.2.2", "-r/etc/upstream", "-C", "/etc/other"]
    (process / "cmdline").write_bytes("\0".join([*words, ""]).encode())
    monkeypatch.setattr(forwarders.resolv_conf_file, "processes_here", lambda command: [process])
    assert search({"etc/upstream": "nameserver fe80::1%eth0", "etc/other": "server=192.0.2.3"}) == (
        "192.0.2.1", "192.0.2.2", "fe80::1%eth0", "192.0.2.3",
    )  # fmt: skip


def test_unbound_names_them_in_the_zone_of_every_name(search):
    text = """
        server:
            interface: 127.0.0.1
        forward-zone:
            name: "lan."
            forward-addr: 192.0.2.98
        forward-zone:
            name: "."
            forward-addr: 192.0.2.1
            forward-addr: 192.0.2.97@853#dns.example
            forward-addr: 2001:db8::1@53
    """
    assert search({"etc/unbound/unbound.conf.d/forward.conf": text}) == ("192.0.2.1", "2001:db8::1")


def test_what_dhcp_has_told_is_kept_beside_it(search):
    found = search(
        {
            "run/systemd/netif/links/2": "ADMIN_STATE=configured\nDNS=192.0.2.3 192.0.2.4\n",
            "run/systemd/resolve/resolv.conf": "nameserver 192.0.2.1\n",
            "run/NetworkManager/no-stub-resolv.conf": "nameserver 192.0.2.2\n",
        }
    )
    assert found == ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")


def test_files_that_name_each_other_and_nonsense_come_to_an_end(search):
    found = search(
        {
            "etc/dnsmasq.conf": "conf-file=/etc/dnsmasq.conf\nconf-dir=\nresolv-file=\nserver=\n=\n",
            "etc/dnsmasq.d/bad": "conf-dir=/\nresolv-file=\0\nconf-file=..\nserver=192.0.2.1\n",
            "etc/unbound/unbound.conf": "forward-zone:\nforward-zone:\nname: .\nforward-addr: nonsense\n",
        }
    )
    assert "192.0.2.1" in found


def test_only_so_many_are_asked(search):
    text = "\n".join(f"server=192.0.2.{number}" for number in range(1, 50))
    assert len(search({"etc/dnsmasq.conf": text})) == forwarders.MAX_SERVERS


def test_this_machine_can_be_searched():
    assert isinstance(Search(Path("/")).run(), tuple)
