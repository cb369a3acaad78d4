"""`htvpn server init`, `add-client` and `remove-client`: files that fit together."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtensionOID

from halftunnel_vpn.config.client import parse_client
from halftunnel_vpn.config.clients import parse_client_entry
from halftunnel_vpn.config.server import parse_server
from halftunnel_vpn.protocol.keys import KeyPair, decode_key

PAIR = ("--upstream", "wss://a.example.org", "--downstream", "wss://b.example.net")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_makes_a_directory_that_only_its_owner_can_read(exit_directory):
    assert mode(exit_directory) == 0o700
    assert mode(exit_directory / "clients") == 0o700
    assert {path.name: mode(path) for path in exit_directory.iterdir() if path.is_file()} == dict.fromkeys(
        ["exit.key", "server.toml"]
        + [f"{road}{part}" for road in ("upstream", "downstream") for part in (".pem", ".key", "-ca.pem")],
        0o600,
    )


def test_init_prints_how_to_run_the_exit_and_to_admit_a_client(htvpn, tmp_path):
    made = htvpn("server", "init", "--dir", tmp_path / "an exit", *PAIR)
    assert made.returncode == 0
    for words in ("server run", "server invite NAME", "server add-client NAME --output NAME.toml"):
        assert f"htvpn {words} --dir '{tmp_path}/an exit'\n" in made.stdout


def test_what_is_printed_for_a_new_key_replaces_the_profile_of_the_old_one(exit_directory, htvpn, tmp_path):
    for number, (words, stored_as) in enumerate(
        [
            (("add-client", "tablet"), "add tablet"),
            (("client", "tablet", "rotate-key"), "add --replace tablet"),
        ]
    ):
        output = tmp_path / f"{number}.toml"
        made = htvpn("server", *words, "--dir", exit_directory, "--output", output)
        assert f"run `sudo htvpn profile {stored_as} {output}` there" in made.stdout, made.stderr
    for action in ("disable", "enable"):
        done = htvpn("server", "client", "tablet", action, "--dir", exit_directory)
        assert done.stdout.startswith(f"tablet: {action}d.\n")


def test_init_writes_what_was_asked_for(exit_directory):
    config = parse_server((exit_directory / "server.toml").read_text())
    upstream, downstream = config.listen.upstream, config.listen.downstream

    assert (upstream.address, upstream.port, downstream.port) == ("::", 443, 8443)
    assert upstream.tls and upstream.certificate == "upstream.pem"
    assert upstream.path != downstream.path, "a common path would join the roads"
    assert len(upstream.path) > 20
    assert config.public.upstream.urls == (f"wss://a.example.org{upstream.path}",)
    assert [urlsplit(url).path for url in config.public.downstream.urls] == [downstream.path] * 2
    assert config.egress.allow == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert config.dns.resolvers == (ip_address("9.9.9.9"),)
    assert len(decode_key((exit_directory / "exit.key").read_text())) == 32


def test_certificates_name_their_own_road_and_share_no_authority(exit_directory):
    seen = {}
    for road in ("upstream", "downstream"):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            exit_directory / f"{road}.pem", exit_directory / f"{road}.key"
        )
        certificate = x509.load_pem_x509_certificate((exit_directory / f"{road}.pem").read_bytes())
        authority = x509.load_pem_x509_certificate((exit_directory / f"{road}-ca.pem").read_bytes())
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        seen[road] = (
            names.get_values_for_type(x509.DNSName),
            names.get_values_for_type(x509.IPAddress),
            authority.public_key().public_numbers(),
            authority.subject.rfc4514_string(),
        )
    assert seen["upstream"][:2] == (["a.example.org"], [])
    assert seen["downstream"][:2] == (["b.example.net"], [ip_address("192.0.2.7")])
    assert seen["upstream"][2] != seen["downstream"][2]
    # Both may be called "Root CA": names are drawn independently, as a rule of its own would link them.
    assert "b.example.net" not in seen["upstream"][3] and "a.example.org" not in seen["downstream"][3]


def test_init_overwrites_nothing(exit_directory, htvpn):
    before = {path: path.read_bytes() for path in exit_directory.rglob("*") if path.is_file()}
    again = htvpn("server", "init", "--dir", exit_directory, *PAIR)
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1 and "exists already, and nothing is overwritten" in again.stderr
    assert {path: path.read_bytes() for path in exit_directory.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--upstream", "http://a", "--downstream", "wss://b"], 2, "--upstream http://a: must be a URL like wss://"),
        ([*PAIR, "--listen-upstream", "443"], 2, "--listen-upstream 443: must be an address and a port"),
        ([*PAIR, "--allow-egress", "10.0.0.1/8"], 2, "must be a network without host bits: 10.0.0.0/8"),
        ([*PAIR, "--dns", "resolver"], 2, "--dns resolver: must be an IPv4 or IPv6 address"),
        ([*PAIR, "--certificate", "x"], 2, "--certificate and --certificate-key belong together"),
        ([*PAIR, "--certificate", "/x", "--certificate-key", "/y"], 1, "there is no file /x"),
        ([*PAIR, "--behind-proxy"], 2, "--behind-proxy needs an address to listen on: --listen-upstream"),
        (["--upstream", "wss://a/x", "wss://a/y", "--downstream", "wss://b"], 2, "must share one path"),
        (["--upstream", "wss://a", "ws://a", "--downstream", "wss://b"], 2, "all be ws:// or all be wss://"),
        (["--upstream", "wss://a/x", "--downstream", "wss://b/x"], 1, "path: must differ from that of"),
    ],
)  # fmt: skip
def test_init_refuses_what_cannot_work_and_leaves_nothing_behind(htvpn, tmp_path, arguments, code, expected):
    made = htvpn("server", "init", "--dir", tmp_path / "new", *arguments)
    assert made.returncode == code
    assert expected in made.stderr and made.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


ONE_PORT = ["--listen-upstream", "192.0.2.1:443", "--listen-downstream", "192.0.2.1:443"]


def test_on_one_port_each_path_has_a_certificate_of_its_own(htvpn, tmp_path):
    made = htvpn("server", "init", "--dir", tmp_path / "exit", *PAIR, *ONE_PORT)
    assert made.returncode == 0, made.stderr
    assert not made.stderr
    parts = []
    for name, host in (("upstream", "a.example.org"), ("downstream", "b.example.net")):
        leaf = x509.load_pem_x509_certificate((tmp_path / "exit" / f"{name}.pem").read_bytes())
        authority = x509.load_pem_x509_certificate((tmp_path / "exit" / f"{name}-ca.pem").read_bytes())
        leaf.verify_directly_issued_by(authority)
        names = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        assert names.get_values_for_type(x509.DNSName) == [host]
        parts.append((leaf.not_valid_before_utc, leaf.not_valid_after_utc, leaf.serial_number))
    assert all(one != other for one, other in zip(*parts, strict=True)), "drawn for each path"


def test_hosts_that_one_name_cannot_tell_apart_share_a_certificate(htvpn, tmp_path):
    hosts = ["--upstream", "wss://192.0.2.1", "--downstream", "wss://192.0.2.2", "wss://b.example.net"]
    made = htvpn("server", "init", "--dir", tmp_path / "exit", *hosts, *ONE_PORT)
    assert made.returncode == 0, made.stderr
    config = parse_server((tmp_path / "exit" / "server.toml").read_text())
    assert config.listen.upstream.certificate == config.listen.downstream.certificate == "server.pem"
    profile = parse_client(htvpn("server", "add-client", "phone", "--dir", tmp_path / "exit").stdout)
    assert profile.tls.ca == (tmp_path / "exit" / "server-ca.pem").read_text()


@pytest.mark.parametrize(
    ("up", "down", "warns"),
    [("127.0.0.1", "localhost", True), ("127.0.0.1", "127.0.0.2", False)],
)
def test_init_warns_when_both_hosts_lead_to_one_address(htvpn, tmp_path, up, down, warns):
    made = htvpn("server", "init", "--dir", tmp_path / "exit",
                 "--upstream", f"wss://{up}:8443", "--downstream", f"wss://{down}:9443")  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert ("have a common address (127.0.0.1)" in made.stderr) is warns


def test_behind_a_proxy_there_is_no_tls_and_no_certificate(htvpn, tmp_path):
    made = htvpn("server", "init", "--dir", tmp_path / "exit", *PAIR, "--behind-proxy",
                 "--listen-upstream", "127.0.0.1:8001", "--listen-downstream", "127.0.0.1:8002")  # fmt: skip
    assert made.returncode == 0, made.stderr
    config = parse_server((tmp_path / "exit" / "server.toml").read_text())
    assert not config.listen.upstream.tls and not config.listen.downstream.tls
    assert config.listen.trusted_proxies == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert not list((tmp_path / "exit").glob("*.pem"))
    profile = parse_client(htvpn("server", "add-client", "phone", "--dir", tmp_path / "exit").stdout)
    assert profile.upstream.tls.ca == "", "the proxy's certificate is one that every machine trusts"


def test_a_given_certificate_is_used_where_it_is_and_must_fit_its_key(htvpn, tmp_path, exit_directory):
    given = ("--certificate", exit_directory / "upstream.pem")
    made = htvpn("server", "init", "--dir", tmp_path / "a", *PAIR, *given,
                 "--certificate-key", exit_directory / "upstream.key")  # fmt: skip
    assert made.returncode == 0, made.stderr
    config = parse_server((tmp_path / "a" / "server.toml").read_text())
    assert config.listen.downstream.certificate == str(exit_directory / "upstream.pem")

    made = htvpn("server", "init", "--dir", tmp_path / "b", *PAIR, *given,
                 "--certificate-key", exit_directory / "downstream.key")  # fmt: skip
    assert made.returncode == 1 and "are not a certificate and its key" in made.stderr
    assert not (tmp_path / "b").exists()


def test_a_client_gets_a_complete_profile_and_the_exit_keeps_the_public_half(exit_directory, htvpn):
    added = htvpn("server", "add-client", "phone", "--dir", exit_directory)
    assert added.returncode == 0 and added.stderr == ""
    profile = parse_client(added.stdout)

    assert profile.name == "phone"
    assert profile.exit.public_key == KeyPair(decode_key((exit_directory / "exit.key").read_text())).public
    assert profile.upstream.tls.ca == (exit_directory / "upstream-ca.pem").read_text()
    assert profile.downstream.tls.ca == (exit_directory / "downstream-ca.pem").read_text()
    path = exit_directory / "clients" / "phone.toml"
    entry = parse_client_entry(path.read_text(), source="phone")
    assert entry.name == "phone"
    assert entry.public_key == KeyPair(profile.client.private_key).public
    assert mode(path) == 0o600

    kept = b"".join(file.read_bytes() for file in exit_directory.rglob("*") if file.is_file())
    assert added.stdout.split('private_key = "')[1][:44].encode() not in kept


def test_headers_of_a_road_go_into_profiles(exit_directory, htvpn):
    path = exit_directory / "server.toml"
    text = path.read_text()
    assert text.count("[public.upstream]\n") == 1
    path.write_text(
        text.replace("[public.upstream]\n", '[public.upstream]\nheaders = { X-Token = "sesame" }\n')
    )
    added = htvpn("server", "add-client", "tablet", "--dir", exit_directory)
    path.write_text(text)
    profile = parse_client(added.stdout)
    assert profile.upstream.tls.headers == {"X-Token": "sesame"} and not profile.downstream.tls.headers
    assert profile.upstream.tls.ca


def test_a_name_is_admitted_once_and_can_be_removed(exit_directory, htvpn):
    assert htvpn("server", "add-client", "phone", "--dir", exit_directory).returncode == 0
    before = (exit_directory / "clients" / "phone.toml").read_bytes()
    again = htvpn("server", "add-client", "phone", "--dir", exit_directory)
    assert (again.returncode, again.stdout) == (1, "")
    assert "this exit has a client phone already" in again.stderr
    assert (exit_directory / "clients" / "phone.toml").read_bytes() == before

    wrong = htvpn("server", "remove-client", "phon", "--dir", exit_directory)
    assert wrong.returncode == 1 and "no client phon; did you mean phone?" in wrong.stderr
    assert htvpn("server", "remove-client", "phone", "--dir", exit_directory).returncode == 0
    assert list((exit_directory / "clients").iterdir()) == []
    wrong = htvpn("server", "remove-client", "phone", "--dir", exit_directory)
    assert wrong.returncode == 1 and "no client phone; it has none" in wrong.stderr


@pytest.mark.parametrize("name", ["../evil", "", "a b", ".hidden", "x" * 65, "-x"])
@pytest.mark.parametrize("command", ["add-client", "remove-client"])
def test_a_client_cannot_be_named_like_a_path(exit_directory, htvpn, command, name):
    done = htvpn("server", command, "--dir", exit_directory, "--", name)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_no_more_clients_than_the_limit_allows(exit_directory, htvpn):
    with (exit_directory / "server.toml").open("a") as file:
        file.write("\n[limits]\nmax_clients = 1\n")
    assert htvpn("server", "add-client", "one", "--dir", exit_directory).returncode == 0
    two = htvpn("server", "add-client", "two", "--dir", exit_directory)
    assert two.returncode == 1 and "[limits] max_clients = 1" in two.stderr


def test_a_profile_that_nobody_could_read_admits_nobody(exit_directory, htvpn):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "halftunnel_vpn.cli",
                "server",
                "add-client",
                "phone",
                "--dir",
                exit_directory,
            ],
            stdout=nobody,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert list((exit_directory / "clients").iterdir()) == []


def test_a_disk_that_is_full_leaves_no_half_an_exit_in_the_way(htvpn, tmp_path, uncounted):
    init = ["server", "init", "--dir", str(tmp_path / "exit"), *PAIR]
    # the key fits, a certificate does not
    shell = ["prlimit", "--fsize=400", sys.executable, "-m", "halftunnel_vpn.cli", *init]
    full = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)
    assert full.returncode == 1 and full.stderr.endswith("cannot be written: File too large\n")
    assert [path for path in (tmp_path / "exit").rglob("*") if path.is_file()] == []
    assert htvpn(*init).returncode == 0


@pytest.mark.parametrize("command", ["add-client phone", "run"])
def test_a_key_that_is_spoilt_is_named(exit_directory, htvpn, command):
    (exit_directory / "exit.key").write_text("garbage")
    done = htvpn("server", *command.split(), "--dir", exit_directory)
    assert done.stderr.startswith(f"htvpn: {exit_directory}/exit.key: a key must be 32 bytes in base64")
    assert list((exit_directory / "clients").iterdir()) == []


@pytest.mark.parametrize("command", ["add-client x", "remove-client x", "run"])
def test_a_directory_without_an_exit_is_one_sentence(htvpn, tmp_path, command):
    done = htvpn("server", *command.split(), "--dir", tmp_path)
    assert done.returncode == 1
    remedy = f"make one with `htvpn server init --dir {tmp_path} ...`"
    assert done.stderr == f"htvpn: there is no {tmp_path}/server.toml; {remedy}\n"


EXIT_USER = 12345


def give_away(directory: Path) -> None:
    """Have the directory and all that is in it belong to the exit's user, as systemd does."""
    for path in [directory, *directory.rglob("*")]:
        os.chown(path, EXIT_USER, EXIT_USER, follow_symlinks=False)


@pytest.fixture
def reachable(exit_directory):
    """The exit's directory, below directories that its user may not enter, as below /var/lib/private."""
    give_away(exit_directory)
    return exit_directory


@pytest.mark.root
def test_files_made_by_root_belong_to_the_owner_of_the_directory(reachable, htvpn):
    added = htvpn("server", "add-client", "phone", "--dir", reachable)
    assert added.returncode == 0, added.stderr
    status = (reachable / "clients" / "phone.toml").stat()
    assert (status.st_uid, status.st_gid) == (EXIT_USER, EXIT_USER)
    assert htvpn("server", "remove-client", "phone", "--dir", reachable).returncode == 0


@pytest.mark.root
@pytest.mark.parametrize("command", ["add-client", "remove-client"])
def test_a_link_in_the_exits_directory_does_not_lead_root_anywhere(reachable, htvpn, tmp_path, command):
    theirs = tmp_path / "of-root"
    theirs.mkdir(mode=0o700)
    (theirs / "phone.toml").write_text("root's own")
    before = [(path.stat().st_uid, path.stat().st_mtime_ns) for path in (theirs, theirs / "phone.toml")]
    (reachable / "clients").rmdir()
    (reachable / "clients").symlink_to(theirs)
    done = htvpn("server", command, "phone", "--dir", reachable)
    assert done.returncode == 1
    assert done.stderr.startswith(f"htvpn: the directory {reachable}/clients cannot be made: ")
    assert done.stderr.count("\n") == 1 and done.stdout == ""
    assert [path.name for path in theirs.iterdir()] == ["phone.toml"]
    assert before == [
        (path.stat().st_uid, path.stat().st_mtime_ns) for path in (theirs, theirs / "phone.toml")
    ]


@pytest.mark.root
@pytest.mark.parametrize("name", ["server.toml", "exit.key", "upstream-ca.pem"])
def test_root_reads_nothing_for_the_exits_user_that_this_user_may_not_read(reachable, htvpn, tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_text((reachable / name).read_text())
    secret.chmod(0o600)
    (reachable / name).unlink()
    (reachable / name).symlink_to(secret)
    done = htvpn("server", "add-client", "phone", "--dir", reachable)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        f"htvpn: {reachable}/{name} may not be read by user {EXIT_USER}, to whom {reachable} belongs; "
        "give it to that user\n"
    )
    assert list((reachable / "clients").iterdir()) == []


@pytest.mark.root
def test_init_in_a_directory_of_somebody_else_follows_no_link_with_the_rights_of_root(htvpn, tmp_path):
    home, theirs = tmp_path / "home", tmp_path / "of-root"
    home.mkdir()
    theirs.mkdir(mode=0o700)
    (home / "exit").mkdir()
    give_away(home)
    made = htvpn("server", "init", "--dir", home / "exit" / "new", *PAIR)
    assert made.returncode == 0, made.stderr
    assert {path.stat().st_uid for path in (home / "exit").rglob("*")} == {EXIT_USER}
    (home / "other").mkdir()
    (home / "other" / "clients").symlink_to(theirs / "clients")
    give_away(home)
    refused = htvpn("server", "init", "--dir", home / "other", *PAIR)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert list(theirs.iterdir()) == []


def test_nothing_in_the_directory_can_sign_certificates(exit_directory):
    """An attacker who takes over the exit gets its own keys, but none that clients trust to sign others."""
    authorities = {
        x509.load_pem_x509_certificate(path.read_bytes()).public_key().public_numbers()
        for path in exit_directory.glob("*-ca.pem")
    }
    keys = {
        load_pem_private_key(path.read_bytes(), None).public_key().public_numbers()
        for path in exit_directory.rglob("*")
        if path.is_file() and b"PRIVATE KEY" in path.read_bytes()
    }
    assert len(authorities) == len(keys) == 2 and not authorities & keys


@pytest.mark.parametrize("umask", [0o022, 0o177])
def test_a_profile_goes_to_a_new_file_that_only_its_owner_may_read(htvpn, exit_directory, tmp_path, umask):
    output = tmp_path / "phone profile.toml"
    before = os.umask(umask)
    try:
        done = htvpn("server", "add-client", "phone", "--dir", exit_directory, "--output", output)
    finally:
        os.umask(before)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"is in '{output}'" in done.stdout and f"htvpn profile add phone '{output}'" in done.stdout
    assert "private_key" not in done.stdout
    assert mode(output) == 0o600
    assert parse_client(output.read_text()).name == "phone"


def test_a_profile_that_cannot_be_written_admits_nobody(htvpn, exit_directory, tmp_path):
    there = tmp_path / "there.toml"
    there.write_text("precious")
    for output, said in (
        (there, "exists already and is not replaced"),
        (tmp_path / "no" / "where.toml", "cannot be written: No such file or directory"),
    ):
        done = htvpn("server", "add-client", "phone", "--dir", exit_directory, "--output", output)
        assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1
    assert there.read_text() == "precious"
    assert htvpn("server", "add-client", "phone", "--dir", exit_directory).returncode == 0


def test_a_file_that_others_may_read_is_noticed_when_it_takes_a_profile(exit_directory, tmp_path):
    for mode, warned in ((0o644, True), (0o600, False)):
        path = tmp_path / f"profile-{mode:o}.toml"
        path.touch()
        path.chmod(mode)
        with path.open("w") as output:
            command = [sys.executable, "-m", "halftunnel_vpn.cli", "server", "add-client", f"phone-{mode:o}"]
            done = subprocess.run(
                [*command, "--dir", str(exit_directory)],
                stdout=output, stderr=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
        assert ("--output FILE" in done.stderr) == warned


@pytest.mark.parametrize(
    "words",
    [
        ("server", "run", "--dir", ""),
        ("server", "add-client", "x", "--dir", ""),
        ("server", "init", "--dir", "", "--upstream", "wss://a.example", "--downstream", "wss://b.example"),
        ("profile", "list", "--dir", ""),
        ("status", "--socket", ""),
    ],
)
def test_an_empty_path_is_not_the_working_directory(htvpn, tmp_path, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = htvpn(*words)
    assert done.returncode == 2 and "must not be empty" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_hints_quote_a_path_with_a_space(htvpn, tmp_path):
    directory = tmp_path / "my exit"
    done = htvpn("server", "run", "--dir", directory)
    assert f"htvpn server init --dir '{directory}' ..." in done.stderr
    roads = ("--upstream", "wss://a.example", "--downstream", "wss://b.example")
    done = htvpn("server", "init", "--dir", directory, *roads)
    assert f"htvpn server invite NAME --dir '{directory}'" in done.stdout


# --- certificates -----------------------------------------------------------------------------------


@pytest.fixture
def another(htvpn, tmp_path):
    """Certificate and key of somebody else, as an ACME client leaves them for root."""
    made = htvpn("server", "init", "--dir", tmp_path / "another", *PAIR)
    assert made.returncode == 0
    return tmp_path / "another" / "upstream.pem", tmp_path / "another" / "upstream.key"


def test_a_renewed_certificate_is_put_where_the_exit_reads_it(exit_directory, another, htvpn):
    certificate, key = another
    kept = (exit_directory / "downstream.pem").read_bytes()
    done = htvpn("server", "certificate", "--dir", exit_directory, "--direction", "upstream",
                 "--certificate", certificate, "--certificate-key", key)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "profiles trust the authority in upstream-ca.pem alone for upstream" in done.stderr
    assert (exit_directory / "upstream.pem").read_bytes() == certificate.read_bytes()
    assert (exit_directory / "upstream.key").read_bytes() == key.read_bytes()
    assert mode(exit_directory / "upstream.key") == 0o600
    assert (exit_directory / "downstream.pem").read_bytes() == kept
    assert htvpn("server", "check", "--files", "--dir", exit_directory).returncode == 0


@pytest.mark.root
def test_a_certificate_is_written_through_no_link(reachable, another, htvpn, tmp_path):
    (tmp_path / "of-root").mkdir(mode=0o700)
    (reachable / "upstream.key").unlink()
    (reachable / "upstream.key").symlink_to(tmp_path / "of-root" / "key")
    done = htvpn("server", "certificate", "--dir", reachable, "--direction", "upstream",
                 "--certificate", another[0], "--certificate-key", another[1])  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "of-root").iterdir()) == []
    assert (reachable / "upstream.key").stat().st_uid == EXIT_USER


def test_a_certificate_that_cannot_be_used_changes_nothing(exit_directory, another, htvpn):
    before = {path: path.read_bytes() for path in exit_directory.rglob("*") if path.is_file()}
    words = (
        "server",
        "certificate",
        "--dir",
        exit_directory,
        "--certificate-key",
        another[1],
        "--certificate",
    )
    refused = htvpn(*words, exit_directory / "upstream.pem")
    assert refused.returncode == 1 and "are not a certificate and its key" in refused.stderr
    refused = htvpn(*words, "/nowhere")
    assert refused.returncode == 1 and refused.stderr == "htvpn: there is no file /nowhere\n"
    assert {path: path.read_bytes() for path in exit_directory.rglob("*") if path.is_file()} == before
    path = exit_directory / "server.toml"
    path.write_text(path.read_text().replace('"upstream.pem"', '"/etc/upstream.pem"'))
    refused = htvpn(*words, another[0])
    assert refused.returncode == 1 and "is not a name in the exit's directory; write" in refused.stderr


@pytest.mark.parametrize("name", ["server.toml", "exit.key", "upstream.pem", "downstream.key"])
def test_check_names_the_file_that_an_exit_could_not_use(exit_directory, htvpn, name):
    (exit_directory / name).write_text("[spoilt")
    checked = htvpn("server", "check", "--dir", exit_directory)
    assert checked.returncode == 1 and checked.stderr.count("\n") == 1
    assert name in checked.stderr


def test_a_profile_asks_for_the_shaping_that_the_exit_allows(exit_directory, htvpn):
    arguments = ("server", "add-client", "--dir", exit_directory)
    profile = parse_client(htvpn(*arguments, "quiet", "--shaping", "strong").stdout)
    assert profile.shaping.mode == "strong"
    assert parse_client(htvpn(*arguments, "plain").stdout).shaping.mode == "off"
    configuration = exit_directory / "server.toml"
    configuration.write_text(configuration.read_text() + '\n[shaping]\nmax = "split"\n')
    refused = htvpn(*arguments, "more", "--shaping", "strong")
    assert refused.returncode == 1 and '[shaping] max is "split" here' in refused.stderr
    assert not (exit_directory / "clients" / "more.toml").exists()
