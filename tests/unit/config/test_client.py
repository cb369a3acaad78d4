"""Profiles of clients: what they default to, and what is said when they are wrong."""

from __future__ import annotations

import base64
from dataclasses import FrozenInstanceError
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from halftunnel_vpn.config.client import parse_client
from halftunnel_vpn.config.schema import MAX_PROBLEMS, MAX_TEXT
from halftunnel_vpn.errors import ConfigError


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_client(text, source="home.toml")
    return str(caught.value)


def test_a_minimal_profile_gets_the_defaults_of_the_design(minimal_profile):
    profile = parse_client(minimal_profile)

    assert profile.name == "home"
    assert profile.exit.public_key == bytes(range(32))
    assert profile.client.private_key == bytes(range(100, 132))
    assert profile.upstream.urls == ("wss://a.example.org/up",)
    assert profile.downstream.urls == ("wss://b.example.net:8443/down", "ws://[2001:db8::1]/down")
    assert profile.upstream.connections == 1
    assert profile.upstream.tls.ca == "" and profile.upstream.tls.certificate_sha256 == ()
    assert profile.proxy.url is None
    assert (profile.tun.name, profile.tun.mtu) == ("htvpn0", 1500)
    assert profile.tun.addresses == (ip_interface("10.73.72.1/32"), ip_interface("fd48:5456:504e::1/128"))
    assert profile.routes.include == (ip_network("0.0.0.0/0"), ip_network("::/0"))
    assert profile.routes.exclude == ()
    assert profile.dns.mode == "forward"
    assert profile.dns.addresses == (ip_address("10.73.72.53"), ip_address("fd48:5456:504e::53"))
    assert (profile.limits.stream_window, profile.limits.session_window) == (16 * 2**20, 64 * 2**20)
    assert (profile.limits.max_flows, profile.limits.udp_idle, profile.limits.keepalive) == (65536, 300, 8)
    assert profile.tcp.answer_at_once is False
    assert profile.control.socket == "/run/halftunnel/control.sock"
    assert (profile.log.level, profile.log.format) == ("info", "text")


def test_values_arrive_as_what_the_program_uses(minimal_profile):
    profile = parse_client(
        minimal_profile
        + f'[tls]\ncertificate_sha256 = ["{":".join(["AA", "bb"] * 16)}"]\n'
        + """
[routes]
exclude = ["192.168.0.0/16", "192.0.2.7"]
[dns]
mode = "fake-ip"
block = ["*.Ads.Example.COM", "tracker.example."]
[dns.hosts]
"NAS.home" = ["192.168.1.2", "fd00::2"]
"bücher.example" = ["192.0.2.1"]
[dns.split]
"corp.example.org" = ["10.0.0.53"]
[limits]
stream_window = "1.5MiB"
session_window = 8000000
udp_idle = "2m"
keepalive = 5
connect_timeout = "1500ms"
[proxy]
url = "http://user:secret@proxy.example.org:3128"
"""
    )

    assert profile.tls.certificate_sha256[0].hex().startswith("aabbaabb")
    assert profile.routes.exclude == (ip_network("192.168.0.0/16"), ip_network("192.0.2.7/32"))
    assert profile.dns.block == ("ads.example.com", "tracker.example")
    assert profile.dns.hosts == {
        "nas.home": (ip_address("192.168.1.2"), ip_address("fd00::2")),
        "xn--bcher-kva.example": (ip_address("192.0.2.1"),),
    }
    assert profile.dns.split == {"corp.example.org": (ip_address("10.0.0.53"),)}
    assert profile.limits.stream_window == 3 * 2**19
    assert profile.limits.session_window == 8_000_000
    assert (profile.limits.udp_idle, profile.limits.keepalive) == (120.0, 5.0)
    assert profile.limits.connect_timeout == 1.5
    assert profile.proxy.url == "http://user:secret@proxy.example.org:3128"


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        ("[tun]\nmtu = 99", "[tun] mtu = 99: must be a whole number from 1280 to 65535"),
        ("[tun]\nmtu = true", "[tun] mtu = true: must be a whole number"),
        ("[tun]\nmtu = 1500.0", "[tun] mtu = 1500.0: must be a whole number"),
        ('[tun]\nmtu = "1500"', '[tun] mtu = "1500": must be a whole number'),
        ('[tun]\nname = "../../etc"', '[tun] name = "../../etc": must be a device name'),
        (
            '[limits]\ncongestion = "BBR!"',
            '[limits] congestion = "BBR!": must be the name of a congestion control',
        ),
        ("[limits]\ncongestion = 3", '"bbr" or "cubic", or "system"'),
        ('[tun]\nname = "averyverylongname"', "must be a device name of 1 to 15"),
        ('[tun]\nadresses = ["10.0.0.1/32"]', "[tun] adresses: unknown key; did you mean addresses?"),
        ('[tun]\naddresses = ["10.0.0.1/33"]', '[tun] addresses[0] = "10.0.0.1/33": must be an address with'),
        ("[tun]\naddresses = []", "[tun] addresses = []: must be an array of 1 to 8 elements"),
        ('[tun]\naddresses = "10.0.0.1/32"', "must be an array of 1 to 8 elements"),
        ("[tunn]", "[tunn]: unknown table; did you mean [tun]?"),
        ("[zzz]", "[zzz]: unknown table; known here: name, exit, client"),
        ("[tun]\nzzz = 1", "[tun] zzz: unknown key; known here: name, mtu, addresses"),
        ('[routes]\ninclude = ["10.1.2.3/8"]', "must be a network without host bits: 10.0.0.0/8"),
        (
            '[routes]\nexclude = ["10.0.0.0/8", "10.0.0.0/8"]',
            'exclude[1] = "10.0.0.0/8": must be named only once',
        ),
        ('[routes]\nexclude = ["fe80::1%eth0"]', "must be a network like"),
        ("[routes]\npriority = 0", "must be a whole number from 1 to 32000"),
        ("[routes]\nmark = 2147483648", "must be a whole number from 1 to 2147475456"),
        ("[routes]\ntable = 254", "[routes] table: 254 holds this host's own routes; choose another"),
        ('[control]\nsocket = ""', "[control] socket: must name a file"),
        ('[dns]\nmode = "forwrd"', 'must be one of "forward", "fake-ip", "off"'),
        ('[dns]\naddresses = ["10.73.72.1"]', "[dns] addresses: 10.73.72.1 is this machine's own"),
        ('[dns]\nfake_networks = ["198.18.0.0/15"]', "must be an array of 2 to 2 elements"),
        ('[dns]\nfake_networks = ["198.18.0.0/15", "10.0.0.0/8"]', "an IPv4 and an IPv6 network"),
        ("[dns]\ncache_entries = -1", "must be a whole number from 0 to"),
        ('[dns.hosts]\nnas.home = ["1.2.3.4"]', 'written with the whole name in quotes: "example.org" = ...'),
        ('[dns.hosts]\n"a b" = ["1.2.3.4"]', "must be a domain name like example.org"),
        ('[dns.hosts]\n"a.b" = ["1.2.3"]', '[dns] hosts."a.b"[0] = "1.2.3": must be an IPv4 or IPv6 address'),
        ('[dns.hosts]\n"a.b" = "1.2.3.4"', '[dns] hosts."a.b" = "1.2.3.4": must be an array'),
        ('[dns.hosts]\n"a.b" = ["1.2.3.4"]\n"A.B" = ["1.2.3.4"]', "must be named only once"),
        ("[dns]\nhosts = 5", "[dns] hosts = 5: must be a table"),
        (
            '[dns]\nblock = ["ex ample"]',
            "must be a domain like example.org, which stands for all names below",
        ),
        ('[limits]\nudp_idle = "5 parsecs"', 'must be a duration like "250ms", "8s", "5m" or "1h", from 5 s'),
        ("[limits]\nudp_idle = 1", "from 5 s to 86400 s"),
        ("[limits]\nudp_idle = nan", "must be a duration"),
        ("[limits]\nudp_idle = inf", "must be a duration"),
        ("[limits]\nudp_idle = false", "must be a duration"),
        (f"[limits]\nudp_idle = {'9' * 400}", "must be a duration"),
        ('[limits]\nstream_window = "16 MiBB"', 'must be a size like "64KiB" or "16MiB", from 65536 to'),
        ("[limits]\nstream_window = 1", "from 65536 to"),
        ('[limits]\nsession_window = "1MiB"', "session_window: must be at least as large as stream_window"),
        ("[tcp]\nanswer_at_once = 1", "[tcp] answer_at_once = 1: must be true or false"),
        ('[log]\nlevel = "loud"', 'must be one of "debug", "info", "warning", "error"'),
        ('[tls]\nca = "hello"', 'must be PEM text in """ ... """'),
        ('[tls]\ncertificate_sha256 = ["abcd"]', "must be a SHA-256 fingerprint: 64 hexadecimal digits"),
        ('[tls]\nserver_name = "no name"', "must be a domain name"),
        ('[tls]\nheaders = { Host = "a" }', "a header that the upgrade does not need itself"),
        ('[tls]\nheaders = { "X y" = "a" }', "must be the name of an HTTP header"),
        ('[tls]\nheaders = { X = "a\\r\\nb" }', "printable characters of ASCII"),
        ('[tls]\nhost_header = "a\\r\\nb: c"', "must be a host name, perhaps with :port"),
        (
            '[proxy]\nurl = "socks5://user:secret@x:1"',
            "[proxy] url = (not shown): must be a URL like http://",
        ),
        ('[proxy]\nurl = "http://proxy/path"', "must be a URL like http://"),
    ],
)
def test_one_mistake_is_one_sentence_that_names_key_value_and_what_is_allowed(
    minimal_profile, addition, expected
):
    said = problem(f"{minimal_profile}\n{addition}\n")
    assert said.startswith("home.toml: ") and "\n" not in said
    assert expected in said


def test_a_value_in_place_of_a_table_is_named(minimal_profile):
    said = problem("tun = 5\n" + minimal_profile)
    assert said == "home.toml: tun = 5: must be a table: write [tun] on a line of its own"


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example.org/",
        "wss://",
        "wss:///path",
        "wss://user@a.example.org/",
        "wss://user:password@a.example.org/",
        "wss://a.example.org:0/",
        "wss://a.example.org:65536/",
        "wss://a.example.org:port/",
        "wss://a.example.org/#fragment",
        "wss://a.example.org/#",
        "wss://a.example.org/ space",
        "wss://a.example.org/\\nHost: evil",
        "wss://a..example.org/",
        "wss://-a-.example.org/",
        "wss://[::g]/",
        "wss://[::1/",
        "wss://bücher..example/",
        "wss://a.example.org/bücher",
        "wss://a.example.org/" + "x" * 2000,
    ],
)
def test_urls_that_cannot_be_dialled_are_refused(minimal_profile, url):
    said = problem(minimal_profile.replace("wss://a.example.org/up", url))
    assert said.startswith("home.toml: [upstream] urls[0] = ")
    assert "must be a URL like wss://a.example.org/path" in said


@pytest.mark.parametrize("key", ["", "abcd", "!" * 44, base64.b64encode(bytes(31)).decode(), "A" * 44 + "="])
def test_a_bad_private_key_is_refused_without_being_repeated(minimal_profile, key):
    text = minimal_profile.replace(base64.b64encode(bytes(range(100, 132))).decode(), key)
    said = problem(text)
    assert said == (
        "home.toml: [client] private_key = (not shown): must be a key: 32 bytes in base64, "
        "44 characters with the = at the end"
    )


def test_every_problem_of_a_file_is_reported_at_once():
    said = problem('nmae = "x"\n[tun]\nmtu = 1\n[upstream]\nurls = ["http://a", "wss://b.example.org"]\n')
    assert said.splitlines() == [
        "home.toml has 7 problems:",
        "  nmae: unknown key; did you mean name?",
        "  name is missing",
        "  [exit] public_key is missing",
        "  [client] private_key is missing",
        '  [upstream] urls[0] = "http://a": must be a URL like wss://a.example.org/path '
        "(ws:// or wss://, no user, no #fragment)",
        "  [downstream] urls is missing",
        "  [tun] mtu = 1: must be a whole number from 1280 to 65535",
    ]


def test_a_report_is_bounded_in_lines_and_in_width(minimal_profile):
    bad = ", ".join(f'"{"x" * 500}{number}/"' for number in range(100))
    said = problem(f"{minimal_profile}\n[routes]\nexclude = [{bad}]\n").splitlines()
    assert len(said) == MAX_PROBLEMS + 2
    assert said[0] == "home.toml has 100 problems:"
    assert said[-1] == f"  and {100 - MAX_PROBLEMS} more"
    assert all(len(line) < 200 for line in said)


def test_what_is_repeated_from_a_file_moves_no_cursor(minimal_profile):
    said = problem(minimal_profile + '\n[tun]\nname = "\\u001b[2Jx"\n')
    assert '"?[2Jx"' in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = ", "not valid TOML"),
        ('name = "a"\nname = "b"\n', "not valid TOML"),
        ("[tun]\n[tun]\n", "not valid TOML"),
        ("a = " + "[" * 100_000, "not valid TOML"),
        ("a = " + "9" * 10_000, "not valid TOML"),
        ("\x00", "not valid TOML"),
        ("#" * (MAX_TEXT + 1), "so it is not read"),
    ],
    ids=["half a line", "a key twice", "a table twice", "deep", "long number", "nul", "huge"],
)
def test_what_is_no_toml_is_refused_in_one_sentence(text, expected):
    said = problem(text)
    assert said.startswith("home.toml: ") and expected in said and "\n" not in said


def test_each_road_takes_from_the_common_tls_what_it_does_not_say_itself(minimal_profile):
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    profile = parse_client(
        minimal_profile
        + f'''
[tls]
ca = """
{pem}"""
host_header = "front.example.com"
headers = {{ X-Token = "sesame", User-Agent = "" }}
[downstream.tls]
headers = {{ X-Token = "other" }}
certificate_sha256 = ["{"ab" * 32}"]
server_name = "other.example.com"
'''
    )

    assert profile.upstream.tls == profile.tls
    assert profile.tls.ca == pem
    assert profile.upstream.tls.headers == {"X-Token": "sesame", "User-Agent": ""}
    assert profile.downstream.tls.headers == {"X-Token": "other", "User-Agent": ""}
    assert "sesame" not in repr(profile)
    assert profile.downstream.tls.host_header == "front.example.com"
    assert profile.downstream.tls.server_name == "other.example.com"
    assert profile.downstream.tls.certificate_sha256 == (b"\xab" * 32,)
    assert profile.downstream.tls.ca == "", (
        "a road with a pin of its own must not trust the common authority too"
    )


def test_a_profile_cannot_be_changed_and_shows_no_secret(minimal_profile):
    profile = parse_client(minimal_profile + '[proxy]\nurl = "http://u:sesame@proxy.example.org"\n')
    with pytest.raises(FrozenInstanceError):
        profile.name = "other"
    assert "sesame" not in repr(profile)
    assert repr(profile.client) == "ClientConfig()"


def test_the_private_key_in_place_of_the_public_one_is_noticed(minimal_profile):
    public = base64.b64encode(bytes(range(32))).decode()
    private = base64.b64encode(bytes(range(100, 132))).decode()
    assert "must be the exit's public key" in problem(minimal_profile.replace(public, private))


@pytest.mark.parametrize(
    ("url", "dialled"),
    [
        ("wss://bücher.example:8443/up?x=1", "wss://xn--bcher-kva.example:8443/up?x=1"),
        ("wss://A.Example.org./up", "wss://a.example.org/up"),
        ("wss://a.example.org.:444/up", "wss://a.example.org:444/up"),
        ("wss://[2001:db8::1]:444/up", "wss://[2001:db8::1]:444/up"),
    ],
)
def test_host_names_become_what_certificates_and_dns_have(minimal_profile, url, dialled):
    profile = parse_client(minimal_profile.replace("wss://a.example.org/up", url))
    assert profile.upstream.urls == (dialled,)


def test_the_host_of_a_proxy_likewise_and_its_password_stays(minimal_profile):
    text = minimal_profile + '\n[proxy]\nurl = "http://Me:P%40ss@Bücher.example.:3128"\n'
    assert parse_client(text).proxy.url == "http://Me:P%40ss@xn--bcher-kva.example:3128"
