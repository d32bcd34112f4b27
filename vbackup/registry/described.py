"""The options of a class in words: what ``vbackup plugins NAME`` shows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticSerializationError, core_schema

from vbackup.api import PluginError
from vbackup.guards.blame import is_ours, told

Schema = Mapping[str, Any]

_DEEPEST = 6
"""How far mappings in mappings, lists of lists and the like are followed: a type may have itself inside."""
_TYPES: Mapping[str, str] = {
    "string": "text",
    "boolean": "true or false",
    "object": "mapping",
    "array": "list",
    "null": "nothing",
}
_LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


class Lenient(GenerateJsonSchema):
    """Leaves open what JSON Schema has no words for (a stranger's own type), where pydantic would fail."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}

    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonSchemaValue:
        """Return the schema of anything."""
        del schema, error_info
        return {}

    def encode_default(self, dft: Any) -> Any:
        """Return a default as JSON has it; where JSON has none (infinity, an object), it is left out."""
        try:
            encoded = super().encode_default(dft)
            json.dumps(encoded, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise PydanticSerializationError(told(error)) from error
        return encoded


@dataclass(frozen=True, slots=True)
class Option:
    """One key of an entry. The keys of a mapping in it have a dot (``chap.user``), those of a list's items ``[].``."""

    key: str
    type: str
    """What may stand there, in words."""
    required: bool
    default: Any
    """As JSON has it; None, too, where there is none."""
    meaning: str


def options(model: type[BaseModel]) -> list[Option]:
    """Return the options of a class in the order of its model. Raises: `PluginError` when it cannot be described."""
    schema = described(model)
    return list(_options(schema, schema.get("$defs", {}), "", 0))


def described(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a model with options of plugins. Raises: `PluginError` when that cannot be had."""
    try:
        schema = model.model_json_schema(schema_generator=Lenient)
        json.dumps(schema, allow_nan=False)
    except BaseException as error:  # a stranger's options may describe themselves by code of their own
        if is_ours(error):
            raise
        raise PluginError(f"{model.__name__} cannot be described: {told(error)}") from error
    return schema


def _options(node: Schema, definitions: Schema, prefix: str, depth: int) -> Iterator[Option]:
    for name, property_ in node.get("properties", {}).items():
        key = f"{prefix}{name}"
        yield Option(
            key=key,
            type=_words(property_, definitions, depth),
            required=name in node.get("required", ()),
            default=property_.get("default"),
            meaning=property_.get("description", ""),
        )
        for inner, mark in _mappings(property_, definitions, depth + 1):
            yield from _options(inner, definitions, f"{key}{mark}.", depth + 1)


def _mappings(node: Schema, definitions: Schema, depth: int) -> Iterator[tuple[Schema, str]]:
    """Yield the mappings with keys of their own that a node may be; a secret's are known to everybody."""
    if depth > _DEEPEST or _is_secret(node):
        return
    node = _resolved(node, definitions)
    if "properties" in node:
        yield node, ""
    for choice in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _mappings(choice, definitions, depth + 1)
    if isinstance(items := node.get("items"), dict):
        yield from ((inner, f"[]{mark}") for inner, mark in _mappings(items, definitions, depth + 1))


def _words(node: Schema, definitions: Schema, depth: int) -> str:
    if depth > _DEEPEST:
        return "..."
    if _is_secret(node):
        return "secret (env, file, credential or command)"
    node = _resolved(node, definitions)
    if "const" in node:
        return _value(node["const"])
    if "enum" in node:
        return " | ".join(map(_value, node["enum"]))
    if choices := [*node.get("anyOf", ()), *node.get("oneOf", ())]:
        words = [_words(choice, definitions, depth + 1) for choice in choices if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    return _of_type(node, definitions, depth + 1)


def _of_type(node: Schema, definitions: Schema, depth: int) -> str:
    kind: str | list[str] = node.get("type", "anything")
    if isinstance(kind, list):
        return " or ".join(_TYPES.get(each, each) for each in kind)
    if kind == "array" and isinstance(node.get("items"), dict):
        return f"list of {_words(node['items'], definitions, depth)}"
    values = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
    if kind == "object" and (known := [value for value in values if isinstance(value, dict)]):
        return f"mapping of names to {_words(known[0], definitions, depth)}"
    if kind == "string" and node.get("format") == "path":
        return "path"
    return _TYPES.get(kind, kind) + _limits(node)


def _limits(node: Schema) -> str:
    limits = {word: node[keyword] for keyword, word in _LIMITS.items() if keyword in node}
    return "".join(f", {word} {limit}" for word, limit in limits.items())


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_secret(node: Schema) -> bool:
    return str(node.get("$ref", "")).endswith("/SecretRef")


def _resolved(node: Schema, definitions: Schema) -> Schema:
    for _ in range(_DEEPEST):
        if "$ref" not in node:
            break
        node = definitions.get(str(node["$ref"]).removeprefix("#/$defs/"), {})
    return node
