"""JSON Schema as editors read it.

pydantic writes draft 2020-12. Editors of YAML read draft 7, where what stands beside a ``$ref`` is ignored, a tuple is
``items``, and nobody knows ``discriminator``: of a ``oneOf`` they can only say that nothing in it fits. So entries that
a key tells apart become conditions, and what is wrong is told where it stands. Two things are for VS Code's language
server: it completes nothing where ``maxProperties`` is reached by the key that is being written, and it writes the
default behind each key, where null and ``[object Object]`` are of no use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

_ONE = {"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"}
_MANY = {"anyOf", "oneOf", "allOf", "prefixItems"}
_NAMED = {"properties", "patternProperties", "$defs"}


def draft7(schema: Schema) -> Schema:
    """Return ``schema``, of draft 2020-12 as pydantic writes it, in draft 7."""
    walk = _Walk(schema.get("$defs", {}))
    return {"$schema": "http://json-schema.org/draft-07/schema#", **walk.through(schema)}


class _Walk:
    """Goes through schemas. Only what stands where schemas stand is looked at: keys and values may be called anything.

    ``inside`` are the references that were put in the place of what they name, on the way to here.
    """

    def __init__(self, definitions: Mapping[str, Schema], inside: frozenset[str] = frozenset()) -> None:
        self._definitions = definitions
        self._inside = inside

    def through(self, node: Any) -> Any:
        """Return a schema in draft 7."""
        if not isinstance(node, dict):
            return node
        return self._put_right({keyword: self._below(keyword, value) for keyword, value in node.items()})

    def _below(self, keyword: str, value: Any) -> Any:
        if keyword in _ONE:
            return self.through(value)
        if keyword in _MANY:
            return [self.through(inner) for inner in value]
        if keyword in _NAMED:
            return {name: self.through(inner) for name, inner in value.items()}
        return value

    def _put_right(self, node: Schema) -> Schema:
        if "default" in node and _is_of_no_use(node["default"]):
            del node["default"]
        if "prefixItems" in node:
            node["items"] = node.pop("prefixItems")
        if node.get("minProperties") == node.get("maxProperties") == 1 and "properties" in node:
            del node["minProperties"], node["maxProperties"]
            node["oneOf"] = [{"required": [key]} for key in node["properties"]]
        if "discriminator" in node:
            node = self._told_apart(node)
        if "$ref" in node and len(node) > 1:
            node = self._in_place(node)
        return node

    def _told_apart(self, node: Schema) -> Schema:
        """Put conditions for a union, unless its key is no text: the mapping would make one of a number."""
        told = node.pop("discriminator")
        key, mapping = told["propertyName"], told.get("mapping", {})
        tags = {value: self._named(name).get("properties", {}).get(key, {}) for value, name in mapping.items()}
        if not tags or not all(value in (tag.get("const"), *tag.get("enum", ())) for value, tag in tags.items()):
            return node
        del node["oneOf"]
        return node | {
            "type": "object",
            "properties": {
                key: {
                    "description": next(iter(tags.values())).get("description", ""),
                    "enum": list(mapping),
                    "type": "string",
                }
            },
            "required": [key],
            "allOf": [
                {
                    "if": {"type": "object", "properties": {key: {"const": value}}, "required": [key]},
                    "then": {"$ref": name},
                }
                for value, name in mapping.items()
            ],
        }

    def _in_place(self, node: Schema) -> Schema:
        """Put what a reference names in its place, below what stands beside it."""
        name = node.pop("$ref")
        if name in self._inside or not self._named(name):
            return {**node, "allOf": [{"$ref": name}, *node.get("allOf", ())]}
        inner: Schema = _Walk(self._definitions, self._inside | {name}).through(self._named(name))
        return inner | node

    def _named(self, name: str) -> Schema:
        return self._definitions.get(name.removeprefix("#/$defs/"), {})


def _is_of_no_use(default: Any) -> bool:
    return default is None or (isinstance(default, list) and any(isinstance(each, dict) for each in default))
