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
    fields = {field.name: field for field in dataclasses.fields(cast(Any, kind))}
    for field in fields.values():
        inner = f"{path}.{field.name}" if path else field.name
        optional = (
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        )
        if not optional and "unless" not in field.metadata:
            needed.append(field.name)
        if "section" in field.metadata:
            properties[field.name] = _table(field.metadata["section"], inner, explained)
            continue
        if "sections" in field.metadata:
            table = _table(field.metadata["sections"], inner, explained)
            text = explanation_of(inner, "", explained).text
            properties[field.name] = {"type": "array", "items": table, "description": text}
            properties[field.name]["maxItems"] = field.metadata["maximum"]
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
    absent = {name: field.metadata["unless"] for name, field in fields.items() if "unless" in field.metadata}
    if absent:
        # Beside a file of several exits, their tables take the place of these.
        others = [{"required": [other]} for other in dict.fromkeys(absent.values())]
        schema["anyOf"] = [{"required": list(absent)}, *others]
    return schema
