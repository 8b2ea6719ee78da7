"""Writes schema.json: one Draft 2020-12 definition a topic, made from the structs that are sent.

`python -m agent.wire.schema` after a change of the structs; a test says when that was forgotten.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from agent.messages import DEFECT_CLASSES, FLAG_CODES, HOLD_REASONS
from agent.wire.outbound import BODIES, SCHEMA, Envelope

PATH = Path(__file__).with_name("schema.json")
Schema = dict[str, Any]

# Closed lists that the structs carry as text, by topic and path.
ENUMS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("hold", ("reason",), HOLD_REASONS),
    ("hold", ("state",), ("begin", "end")),
    ("flag", ("code",), FLAG_CODES),
    ("flag", ("state",), ("raised", "cleared")),
    ("flag", ("severity",), ("info", "warning", "error")),
)


def build() -> Schema:
    """The whole document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What beamside publishes: the JSON part of each message, by topic",
        "anyOf": [{"$ref": f"#/$defs/{topic}"} for topic in BODIES],
        "$defs": {topic: _topic(topic) for topic in BODIES},
    }


def text() -> str:
    return json.dumps(build(), indent=1) + "\n"


def _topic(topic: str) -> Schema:
    # The envelope stands last: where both name a field, it is the envelope's.
    merged: Schema = {**_properties(BODIES[topic]), **_properties(Envelope)}
    merged["topic"], merged["schema"] = {"const": topic}, {"const": SCHEMA}
    merged["seq"] = {"type": "integer", "minimum": 1}
    for where, path, values in ENUMS:
        if where == topic:
            merged[path[0]] = {"enum": list(values)}
    if topic == "defects":
        merged["defects"]["items"]["properties"]["class"] = {"enum": list(DEFECT_CLASSES)}
    if topic == "status":
        _close_status(merged)
    return _closed(merged)


def _close_status(properties: Schema) -> None:
    standing = next(each for each in properties["hold"]["anyOf"] if "properties" in each)
    standing["properties"]["reason"] = {"enum": list(HOLD_REASONS)}
    properties["flags"]["items"] = {"enum": list(FLAG_CODES)}


def _closed(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _properties(struct: type[msgspec.Struct]) -> Schema:
    (_,), components = msgspec.json.schema_components([struct], ref_template="{name}")
    properties: Schema = _inline(components[struct.__name__], components)["properties"]
    return properties


def _inline(node: Any, components: Schema) -> Any:
    if isinstance(node, list):
        return [_inline(each, components) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inline(components[node["$ref"]], components)
    if "properties" in node:
        return _closed({name: _inline(each, components) for name, each in node["properties"].items()})
    return {
        key: _inline(each, components) for key, each in node.items() if key not in ("title", "description", "default")
    }


if __name__ == "__main__":
    PATH.write_text(text())
