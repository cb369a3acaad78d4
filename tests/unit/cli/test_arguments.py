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
    "server invite laptop --qr --expires 1h --once --output F.png",
    "join -",
    "join --name n --dir D",
    "server clients --dir D --json --watch",
    "server web --dir D --port 9000",
    "server client laptop quota 100GB/month --dir D",
    "server client laptop rotate-key --dir D --output F",
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
    "help",
    "help server init",
    "version",
    "config check FILE",
    "config check FILE --role server",
    "server check",
    "server check --files --dir D",
    "server run",
    "server add-client NAME",
    "profile add FILE",
    "profile add NAME --replace FILE",
    "proxy",
    "proxy PROFILE --socks 127.0.0.1:1080 --http /run/h.sock --forward 127.0.0.1:5432=db.internal:5432",
]


@pytest.mark.parametrize("line", CONTRACT)
def test_the_contract_can_be_typed(line):
    assert callable(build_parser().parse_args(line.split()).run)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("statsu", "htvpn status"),
        ("add-client x", "htvpn server add-client"),
        ("connect", "htvpn up"),
        ("profile ad x", "htvpn profile add"),
        ("server chek", "htvpn server check"),
        ("help stauts", "htvpn status"),
    ],
)
def test_an_unknown_command_is_answered_with_the_one_that_was_meant(line, meant, capsys):
    assert main(line.split()) == 2
    assert f"(did you mean '{meant}'?); see 'htvpn" in capsys.readouterr().err


def test_nothing_is_guessed_without_a_reason(capsys):
    assert main(["frobnicate"]) == 2
    assert capsys.readouterr().err == "htvpn: there is no command 'frobnicate'; see 'htvpn --help'\n"
    assert main(["__completee"]) == 2
    assert "__complete'" not in capsys.readouterr().err  # which is not for people


@pytest.mark.parametrize("line", ["help up", "help profile add"])
def test_help_says_what_the_option_says(line, capsys):
    assert main(line.split()) == 0
    said = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*line.split()[1:], "--help"])
    assert capsys.readouterr().out == said


def test_the_version_has_three_names(capsys):
    assert main(["version"]) == 0
    said = capsys.readouterr().out
    for option in ("-V", "--version"):
        with pytest.raises(SystemExit):
            main([option])
        assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("line", "name", "file", "replace"),
    [
        ("F", None, "F", False),
        ("N F", "N", "F", False),
        ("N --replace F", "N", "F", True),
        ("--replace F", None, "F", True),
        ("N - --dir D", "N", "-", False),
        ("N --dir D F", "N", "F", False),
        ("--dir=D F", None, "F", False),
    ],
)
def test_the_name_of_a_profile_may_be_left_out(line, name, file, replace):
    options = build_parser().parse_args(["profile", "add", *line.split()])
    assert (options.name, options.file, options.replace) == (name, file, replace)


def test_an_exit_is_where_its_unit_has_it():
    assert build_parser().parse_args(["server", "check"]).dir == "/var/lib/halftunnel-server"


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
     "up a b", "config check", "status --yaml", "server run --dir D --log-format xml"],
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
