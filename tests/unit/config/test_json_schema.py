"""The JSON Schema of the configuration takes what the program takes, and explains every key."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest
import tomli

from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.explained import explanations
from halftunnel_vpn.config.json_schema import json_schema
from halftunnel_vpn.config.server import ServerConfig

CONFIGS = Path(__file__).parents[3] / "configs"
KINDS = {"client": ClientProfile, "server": ServerConfig}


def example(role: str) -> str:
    return (CONFIGS / f"{role}.toml").read_text(encoding="utf-8")


def schema(role: str) -> dict:
    # As an editor has it.
    return json.loads(json.dumps(json_schema(KINDS[role], example(role), title=role)))


def problems(role: str, text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema(role))
    return [".".join(map(str, error.absolute_path)) for error in validator.iter_errors(tomli.loads(text))]


@pytest.mark.parametrize("role", KINDS)
def test_the_schema_is_one_and_takes_the_example_and_its_defaults(role):
    jsonschema.Draft202012Validator.check_schema(schema(role))
    assert problems(role, example(role)) == []


def test_the_schema_takes_what_is_the_least(minimal_profile, minimal_server):
    assert problems("client", minimal_profile) == []
    assert problems("server", minimal_server) == []


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ("connections = 17", "upstream.connections"),
        ('rotate_after = "an hour"', "upstream.rotate_after"),
        ("conections = 2", "upstream"),
        ("urls = []", "upstream.urls"),
        ('policy = "some"', "upstream.policy"),
        ("rotate_bytes = true", "upstream.rotate_bytes"),
    ],
)
def test_the_schema_refuses_what_the_program_refuses(changed, where):
    text = example("client")
    key = changed.split(" = ")[0]
    before, mark, after = text.partition("[upstream]\n")
    first, rest = after.split("\n[downstream]\n")
    lines = [changed, *(line for line in first.splitlines() if not line.startswith(f"{key} = "))]
    assert problems("client", before + mark + "\n".join(lines) + "\n[downstream]\n" + rest) == [where]


@pytest.mark.parametrize("role", KINDS)
def test_every_key_and_every_default_is_in_the_schema_with_its_explanation(role):
    def walk(kind, table, path):
        for field in dataclasses.fields(kind):
            here = f"{path}.{field.name}".lstrip(".")
            found = table["properties"][field.name]
            if "section" in field.metadata:
                walk(field.metadata["section"], found, here)
            elif "sections" in field.metadata:
                walk(field.metadata["sections"], found["items"], here)
            else:
                seen.add(here)
                assert found.get("description"), here

    seen: set[str] = set()
    walk(KINDS[role], schema(role), "")
    assert len(seen) > 40


def test_a_comment_belongs_to_the_keys_below_it_until_the_next_one_or_an_empty_line():
    found = explanations('# About a,\n# and b.\na = 1\nb = "x"\n# C.\nc = []\n\nd = 2\n# T.\n[t.u]\ne = 3\n')
    assert [(each.table, each.key, each.literal, each.text) for each in found] == [
        ("", "a", "1", "About a, and b."), ("", "b", '"x"', "About a, and b."), ("", "c", "[]", "C."),
        ("", "d", "2", ""), ("t.u", "", "", "T."), ("t.u", "e", "3", ""),
    ]  # fmt: skip
