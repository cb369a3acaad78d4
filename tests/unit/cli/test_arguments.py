"""What can be typed, and the exit codes that follow."""

from __future__ import annotations

import pytest

from halftunnel_vpn.cli.arguments import build_parser
from halftunnel_vpn.cli.main import main
from halftunnel_vpn.errors import UsageError

CONTRACT = [
    "server init --dir D --upstream wss://a --downstream wss://b",
    "server init --dir D --upstream wss://a wss://c --downstream wss://b --listen-upstream 1.2.3.4:5 "
    "--listen-downstream [::1]:5 --allow-egress 10.0.0.0/8 fd00::/8 --dns 9.9.9.9 1.1.1.1",
    "server init --dir D --upstream wss://a --downstream wss://b --certificate C --certificate-key K",
    "server add-client NAME --dir D",
    "server remove-client NAME --dir D",
    "server run --dir D",
    "server run --dir D --log-format json --metrics 127.0.0.1:9100",
    "up",
    "up PROFILE",
    "up PROFILE --foreground",
    "up --foreground --metrics [::1]:9100",
    "down",
    "status",
    "status --json",
    "status --watch",
    "reconnect",
    "reload",
    "logs",
    "logs -f -n 20",
    "portal --minutes 10",
    "repair",
    "profile list",
    "profile add NAME FILE",
    "profile remove NAME",
    "profile use NAME",
    "audit FILE",
    "audit record --for 90s",
    "audit A.pcap B.pcap --json --png P --mode strong --exit 192.0.2.1 [2001:db8::1]:443",
    "demo",
    "demo --keep",
]


@pytest.mark.parametrize("line", CONTRACT)
def test_the_contract_can_be_typed(line):
    assert callable(build_parser().parse_args(line.split()).run)


def test_options_with_several_values_keep_them_in_order():
    options = build_parser().parse_args(
        "server init --dir D --upstream u1 u2 --downstream d --upstream u3 --dns 1.1.1.1 9.9.9.9".split()
    )
    assert options.upstream == ["u1", "u2", "u3"]
    assert options.dns == ["1.1.1.1", "9.9.9.9"]
    assert options.allow_egress == []


@pytest.mark.parametrize(
    "line",
    ["", "nonsense", "server", "server init", "server init --dir D --upstream u", "server add-client --dir D",
     "server run", "up a b", "status --yaml", "server run --dir D --log-format xml"],
)  # fmt: skip
def test_wrong_usage_is_one_sentence_and_exit_code_2(line, capsys):
    with pytest.raises(UsageError, match=r"see 'htvpn.* --help'"):
        build_parser().parse_args(line.split())
    assert main(line.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("htvpn: ") and said.err.count("\n") == 1


@pytest.mark.parametrize(
    "line", ["--help", "server --help", "server init --help", "up --help", "status --help"]
)
def test_help_is_there_for_every_level(line, capsys):
    with pytest.raises(SystemExit) as left:
        main(line.split())
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("usage: htvpn")
