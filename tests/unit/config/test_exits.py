"""Several exits in a profile, and one as it always was."""

from __future__ import annotations

import base64

import pytest

from halftunnel_vpn.client.settings import traffic_policy
from halftunnel_vpn.config.client import parse_client, views
from halftunnel_vpn.config.exits import MAX_EXITS
from halftunnel_vpn.config.further_exit import with_further_exit
from halftunnel_vpn.errors import ConfigError


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


def entry(name: str, number: int, **keys: str) -> str:
    more = "".join(f"{name} = {value}\n" for name, value in keys.items())
    return f"""
[[exits]]
name = "{name}"
public_key = "{key(number)}"
{more}[exits.upstream]
urls = ["wss://{name}-up.example.org:{8000 + number}/up"]
[exits.downstream]
urls = ["wss://{name}-down.example.net/down"]
"""


LIST = f'name = "home"\n[client]\nprivate_key = "{key(200)}"\n' + entry("one", 1) + entry("two", 2)


def test_the_form_with_one_exit_is_a_list_of_one(minimal_profile):
    profile = parse_client(minimal_profile)
    (only,) = profile.exits
    assert (only.name, only.public_key) == ("home", profile.exit.public_key)
    assert (only.upstream, only.downstream) == (profile.upstream, profile.downstream)
    assert views(profile) == [profile]


def test_exits_alone_are_a_profile_seen_through_the_preferred_one():
    text = LIST + entry("three", 3, priority="10", private_key=f'"{key(203)}"')
    profile = parse_client(text)
    assert [each.name for each in profile.exits] == ["three", "one", "two"]
    assert profile.exit.name == "three" and profile.client.private_key == bytes([203]) * 32
    seen = views(profile)
    assert [view.exit.public_key[0] for view in seen] == [3, 1, 2]
    assert [view.client.private_key[0] for view in seen] == [203, 200, 200]
    assert seen[1].upstream.urls == ("wss://one-up.example.org:8001/up",)


def test_the_own_tables_of_a_profile_are_an_exit_beside_the_list(minimal_profile):
    profile = parse_client(minimal_profile + entry("two", 2))
    assert [each.name for each in profile.exits] == ["home", "two"]


def test_the_kill_switch_allows_the_ports_of_all_exits_from_the_start():
    policy = traffic_policy(parse_client(LIST + '[protection]\nkill_switch = "on"\n'))
    assert policy is not None and {443, 8001, 8002} <= set(policy.own_ports)


def test_what_an_exit_says_of_certificates_goes_before_what_the_profile_says():
    text = LIST.replace("[client]", f'[tls]\ncertificate_sha256 = ["{"11" * 32}"]\n[client]')
    text += "[exits.tls]\ncertificate_sha256 = [" + f'"{"22" * 32}"' + "]\n"
    pins = [view.upstream.tls.certificate_sha256 for view in views(parse_client(text))]
    assert pins == [(b"\x11" * 32,), (b"\x22" * 32,)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text.replace('name = "two"', 'name = "one"'), "each exit needs another one"),
        (
            lambda text: text.replace(f'[client]\nprivate_key = "{key(200)}"\n', ""),
            "has no private_key of its own",
        ),
        (
            lambda text: text.replace("[exits.downstream]", "[exits.down]", 1),
            "[exits.1.downstream] urls is missing",
        ),
        (lambda text: text + '[upstream]\nurls = ["wss://x.example.org/"]\n', "[exit] is missing"),
        (lambda text: text.replace(key(2), key(200)), "is the same as [client] private_key"),
        (lambda text: text + "weights = [1]\n", "exit two: [downstream]"),
        (lambda text: text.replace('name = "two"', "name = 7"), "[exits.2] name = 7"),
        (lambda text: "exits = 5\n" + text.partition("[[exits]]")[0], "must be tables"),
        (lambda text: text + "".join(entry(f"e{n}", 10 + n) for n in range(MAX_EXITS)), "at most 16"),
        (lambda text: text.partition("[[exits]]")[0], "[exit] public_key is missing"),
    ],
)
def test_each_mistake_has_its_sentence(change, problem):
    with pytest.raises(ConfigError) as caught:
        parse_client(change(LIST))
    assert problem in str(caught.value)
    assert key(200) not in str(caught.value)


def test_an_exit_is_added_to_the_text_of_a_profile_which_stays_as_it_is(minimal_profile):
    text = "# a comment\n" + minimal_profile
    other = minimal_profile.replace(key_of(minimal_profile, "private_key"), key(77))
    other = (
        other.replace(key_of(minimal_profile, "public_key"), key(78)) + '[tls]\nserver_name = "x.example"\n'
    )
    changed = with_further_exit(text, other, source="home", name="second")
    assert changed.startswith(text.rstrip())
    profile = parse_client(changed)
    assert [each.name for each in profile.exits] == ["home", "second"]
    first, second = views(profile)
    assert first.client.private_key != second.client.private_key
    assert second.upstream.tls.server_name == "x.example" and first.upstream.tls.server_name is None
    with pytest.raises(ConfigError, match="has an exit second already"):
        with_further_exit(changed, other, source="home", name="second")
    thrice = with_further_exit(changed, LIST, source="home")
    assert [each.name for each in parse_client(thrice).exits] == ["home", "second", "one", "two"]


def key_of(text: str, name: str) -> str:
    return text.partition(f'{name} = "')[2].partition('"')[0]
