"""What is installed for an optional part is what pyproject.toml names."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from halftunnel_vpn.errors import EXTRAS, MissingExtra

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_packages_of_an_extra_are_those_of_the_project(extra):
    assert list(EXTRAS[extra]) == PROJECT["optional-dependencies"][extra]


def test_the_sentence_is_a_command_for_the_python_that_runs():
    expected = f"top needs it: run {sys.executable} -m pip install 'textual>=8.2'"
    assert str(MissingExtra("top needs it", "tui")) == expected
