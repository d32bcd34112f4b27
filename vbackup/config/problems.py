"""What pydantic found wrong, in words and at a place in the file. Values are never repeated: they may be secrets."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from vbackup.config.document import Document, Path_, Place, Problem, dotted
from vbackup.config.groups import MEMBER
from vbackup.config.models import ALIAS, SELECTOR

_PATTERNS = {
    ALIAS: "a name is letters, digits and . _ - (64 at most, beginning with a letter or digit)",
    SELECTOR: "must be hypervisor:machine with * as in 'lab:web-*', or one such with ! before it to leave out; "
    "or one of 'lab:/folder/*', 'lab:label=value', '@group'",
    MEMBER: "must be the name of one machine as in 'lab:web', without * and ?",
}
_WORDS = {
    "dict_type": "must be a mapping",
    "mapping_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "path_type": "must be a path",
    "string_type": "must be a text",
}

Unknown = Callable[[str, str], str]
"""Given a section (``transports``) and a ``type:`` nobody has registered, say so."""


def explain(
    errors: Iterable[ErrorDetails], document: Document, schema: Mapping[str, Any], unknown: Unknown
) -> list[Problem]:
    """Turn pydantic's ``errors`` about ``document`` into problems; ``schema`` is that of the model, for suggestions."""
    return [_problem(error, document, schema, unknown) for error in errors]


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?``, or nothing when no word of ``known`` is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _problem(error: ErrorDetails, document: Document, schema: Mapping[str, Any], unknown: Unknown) -> Problem:
    path = _path(document.data, error["loc"])
    if error["type"] == "extra_forbidden":
        known = _keys_at(schema, error["loc"][:-1])
        return Problem(document.keys[path], dotted(path), f"unknown key{suggestion(str(path[-1]), known)}")
    if error["type"] in ("missing", "union_tag_not_found"):
        key = error["loc"][-1] if error["type"] == "missing" else error["ctx"]["discriminator"].strip("'")
        return Problem(_place(document, path), dotted(path), f"missing key {key!r}")
    if error["type"] == "union_tag_invalid":
        path = (*path, error["ctx"]["discriminator"].strip("'"))
    return Problem(_place(document, path), dotted(path), _message(error, document, path, unknown))


def _message(error: ErrorDetails, document: Document, path: Path_, unknown: Unknown) -> str:
    if error["type"] in ("union_tag_invalid", "literal_error") and _is_type_of_entry(path):
        value = document.data
        for part in path:
            value = value[part]
        return unknown("codecs" if len(path) > 3 else str(path[0]), str(value))
    if error["type"] == "string_pattern_mismatch" and error["ctx"]["pattern"] in _PATTERNS:
        return _PATTERNS[error["ctx"]["pattern"]]
    return _WORDS.get(error["type"]) or _sentence(error["msg"])


def _is_type_of_entry(path: Path_) -> bool:
    return path[2:] == ("type",) or (path[2:3] == ("codecs",) and path[4:] == ("type",))


def _path(data: Any, loc: Iterable[str | int]) -> Path_:
    """Return ``loc`` without what is not in the data: what is missing, union tags, marks like ``[key]``."""
    path: list[str | int] = []
    parts = list(loc)
    for index, part in enumerate(parts):
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        tag = isinstance(data, dict) and data.get("type") == part and index + 1 < len(parts)
        if inside and not tag:
            data = data[part]
            path.append(part)
    return tuple(path)


def _place(document: Document, path: Path_) -> Place:
    """Return where the value at ``path`` stands; of a mapping, a list or nothing, where its own key stands."""
    while path not in document.values:
        path = path[:-1]
    value: Any = document.data
    for part in path:
        value = value[part]
    if isinstance(value, dict | list | None) and path in document.keys:
        return document.keys[path]
    return document.values[path]


def _sentence(text: str) -> str:
    text = " ".join(text.split()).removeprefix("Value error, ")
    for start in (
        "Input should be ",
        "Input should ",
        "String should ",
        "Value should ",
        "Tuple should ",
        "List should ",
    ):
        if text.startswith(start):
            return ("must be " if start.endswith("be ") else "must ") + text.removeprefix(start)
    return text[:1].lower() + text[1:]


def _keys_at(schema: Mapping[str, Any], loc: Iterable[str | int]) -> list[str]:
    nodes = [schema]
    for part in loc:
        nodes = [inner for node in nodes for outer in _alternatives(schema, node) for inner in _inside(outer, part)]
    return [key for node in nodes for outer in _alternatives(schema, node) for key in outer.get("properties", {})]


def _alternatives(schema: Mapping[str, Any], node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "$ref" in node:
        return _alternatives(schema, schema["$defs"][node["$ref"].rpartition("/")[2]])
    choices = [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())]
    return [node, *(each for choice in choices for each in _alternatives(schema, choice))]


def _inside(node: Mapping[str, Any], part: str | int) -> list[Mapping[str, Any]]:
    tags = node.get("discriminator", {}).get("mapping", {})
    if part in tags:
        return [{"$ref": tags[part]}]
    if isinstance(part, int):
        return [node["items"]] if isinstance(node.get("items"), dict) else []
    if part in node.get("properties", {}):
        return [node["properties"][part]]
    patterns = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
    return [inner for inner in patterns if isinstance(inner, dict)]
