"""The configuration as JSON Schema (draft 2020-12), by which editors complete and check a TOML file."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import tomli

from halftunnel_vpn.config.explained import Explanation, explanation_of, explanations
from halftunnel_vpn.config.schema import shape_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kind: type[Any], example: str, *, title: str) -> dict[str, Any]:
    """Return the schema of a file that is a ``kind``; ``example`` is a text that explains every key."""
    return {"$schema": DIALECT, "title": title, **_table(kind, "", explanations(example))}


def _table(kind: type[Any], path: str, explained: list[Explanation]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    needed: list[str] = []
    for field in dataclasses.fields(cast(Any, kind)):
        inner = f"{path}.{field.name}" if path else field.name
        optional = (
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        )
        if not optional:
            needed.append(field.name)
        if "section" in field.metadata:
            properties[field.name] = _table(field.metadata["section"], inner, explained)
            continue
        shape = shape_of(field.metadata["check"])
        known = explanation_of(path, field.name, explained)
        free = explanation_of(inner, "", explained)
        shape["description"] = known.text or free.text
        if optional and known.literal:
            shape["default"] = tomli.loads(f"value = {known.literal}")["value"]
        properties[field.name] = shape
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if needed:
        schema["required"] = needed
    return schema
