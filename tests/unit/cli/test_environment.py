"""What the environment of a process says: single keys, whole files, files that hold a value, a new exit."""

from __future__ import annotations

import argparse

import pytest

from halftunnel_vpn.cli import environment, profiles
from halftunnel_vpn.cli.arguments import build_parser
from halftunnel_vpn.errors import ConfigError


def test_only_variables_of_ours_that_hold_something_are_read():
    found = environment.read(
        environment.PROFILE,
        {"HTVPN_LOG_LEVEL": "debug", "HTVPN_DNS_MODE": "", "HOME": "/", "HTVPN_INIT_DNS": "192.0.2.1"},
    )
    assert found == (None, "HTVPN_PROFILE", {"HTVPN_LOG_LEVEL": "debug"})


def test_a_file_holds_the_value(tmp_path):
    key = tmp_path / "key"
    key.write_text("c2VjcmV0\n")
    found = environment.read(environment.PROFILE, {"HTVPN_CLIENT_PRIVATE_KEY_FILE": str(key)})
    assert found.variables == {"HTVPN_CLIENT_PRIVATE_KEY": "c2VjcmV0"}


def test_a_whole_profile_keeps_its_text(tmp_path):
    file = tmp_path / "profile.toml"
    file.write_text('\nname = "home"\n')
    environ = {"HTVPN_PROFILE_FILE": str(file), "HTVPN_SERVER_CONFIG": "of another program"}
    assert environment.read(environment.PROFILE, environ) == ('\nname = "home"\n', str(file), {})
    assert environment.read(environment.PROFILE, {"HTVPN_PROFILE": "x"}) == ("x", "HTVPN_PROFILE", {})


def test_a_value_and_a_file_for_it_are_one_too_many(tmp_path):
    with pytest.raises(ConfigError, match=r"^HTVPN_NAME and HTVPN_NAME_FILE are both set; set one of them$"):
        environment.read(
            environment.PROFILE, {"HTVPN_NAME": "home", "HTVPN_NAME_FILE": str(tmp_path / "name")}
        )


def test_a_file_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"^there is no file .*/gone, which HTVPN_NAME_FILE names$"):
        environment.read(environment.PROFILE, {"HTVPN_NAME_FILE": str(tmp_path / "gone")})


def test_a_new_exit_has_a_variable_for_each_option_of_init():
    parser = build_parser()
    for name in ("server", "init"):
        (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
        parser = commands.choices[name]
    options = {action.dest for action in parser._actions} - {"help", "debug", "dir"}
    known = {*environment.INIT_LISTS, *environment.INIT_VALUES, *environment.INIT_FLAGS}
    assert options == known


def test_a_new_exit_is_described_by_the_options_of_init():
    environ = {
        "HTVPN_INIT_UPSTREAM": "wss://a.example.org, wss://c.example.org",
        "HTVPN_INIT_DOWNSTREAM": "wss://b.example.org",
        "HTVPN_INIT_LISTEN_UPSTREAM": "0.0.0.0:8443",
        "HTVPN_INIT_BEHIND_PROXY": "true",
        "HTVPN_INIT_DNS": "",
    }
    assert environment.init_options(environ) == {
        "upstream": ["wss://a.example.org", "wss://c.example.org"],
        "downstream": ["wss://b.example.org"],
        "listen_upstream": "0.0.0.0:8443",
        "listen_downstream": None,
        "behind_proxy": True,
        "certificate": None,
        "certificate_key": None,
        "allow_egress": [],
        "dns": [],
    }
    assert environment.init_options({"HTVPN_INIT_DNS": "", "HTVPN_NAME": "x"}) is None


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("HTVPN_INIT_BEHIND_PROXY", "yes", "HTVPN_INIT_BEHIND_PROXY = yes: must be true or false"),
        ("HTVPN_INIT_NAME", "x", "HTVPN_INIT_NAME: `htvpn server init` has no such option; see its --help"),
        ("HTVPN_INIT_DOWNSTREAM", "", "HTVPN_INIT_DOWNSTREAM is missing: where do clients reach the exit?"),
    ],
)
def test_a_wrong_description_of_a_new_exit_is_one_sentence(name, value, sentence):
    both = {"HTVPN_INIT_UPSTREAM": "wss://a.example.org", "HTVPN_INIT_DOWNSTREAM": "wss://b.example.org"}
    with pytest.raises(ConfigError) as raised:
        environment.init_options({**both, name: value})
    assert str(raised.value) == sentence


def test_the_profile_in_the_environment_is_read_again_at_each_call(tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "PROFILES", tmp_path)
    for name, value in {
        "HTVPN_EXIT_PUBLIC_KEY": "A" * 43 + "=",
        "HTVPN_CLIENT_PRIVATE_KEY": "B" * 42 + "A=",
        "HTVPN_UPSTREAM_URLS": "wss://a.example.org/x",
        "HTVPN_DOWNSTREAM_URLS": "wss://b.example.org/x",
        "HTVPN_LOG_LEVEL_FILE": str(tmp_path / "level"),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "level").write_text("error\n")
    read = profiles.reader(None)
    assert (read().name, read().log.level) == ("environment", "error")
    (tmp_path / "level").write_text("debug\n")
    assert read().log.level == "debug"


def test_without_any_setting_a_missing_profile_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "PROFILES", tmp_path)
    with pytest.raises(ConfigError, match="there is no profile in"):
        profiles.reader(None)
