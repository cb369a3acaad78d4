"""Whatever goes wrong inside a command leaves as one sentence and an exit code."""

from __future__ import annotations

import sys

import pytest

from halftunnel_vpn.cli import main as cli
from halftunnel_vpn.cli import status
from halftunnel_vpn.errors import ConfigError, HostError, UsageError


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UsageError("say more"), 2, "htvpn: say more\n"),
        (HostError("no tun; load it"), 1, "htvpn: no tun; load it\n"),
        (ConfigError("a is wrong"), 1, "htvpn: a is wrong\n"),
        (KeyboardInterrupt(), 1, "htvpn: interrupted\n"),
        (
            ExceptionGroup("tasks", [ExceptionGroup("more", [OSError(), HostError("no tun")])]),
            1,
            "htvpn: no tun\n",
        ),
        (KeyError("x"), 1, "htvpn: an unexpected error occurred (KeyError: 'x'); --debug shows where\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_a_sentence_and_a_code(monkeypatch, capsys, error, code, sentence):
    def fail(_options):
        raise error

    monkeypatch.setattr(status, "run", fail)
    assert cli.main(["status"]) == code
    assert capsys.readouterr().err == sentence


def test_with_debug_the_place_is_shown(monkeypatch, capsys):
    def fail(_options):
        raise HostError("no tun")

    monkeypatch.setattr(status, "run", fail)
    assert cli.main(["status", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err

    def crash(_options):
        raise KeyError("x")

    monkeypatch.setattr(status, "run", crash)
    with pytest.raises(KeyError):
        cli.main(["status", "--debug"])


def test_control_c_while_the_program_is_loaded_is_one_sentence(monkeypatch, capsys):
    class Interruption:
        """Raise where the kernel's signal would come."""

        def find_spec(self, name, *_):
            if name == "halftunnel_vpn.cli.arguments":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "halftunnel_vpn.cli.arguments", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interruption(), *sys.meta_path])
    assert cli.main(["status"]) == 1
    assert capsys.readouterr().err == "htvpn: interrupted\n"
