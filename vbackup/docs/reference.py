"""The reference of the configuration, from its JSON Schema: so it has the options of plugins, too."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vbackup.config.build import model
from vbackup.config.groups import MEMBER
from vbackup.config.models import ALIAS, SELECTOR
from vbackup.config.quantities import Days, MinuteOfDay, Rate, Seconds, Size
from vbackup.config.wrapping import Wrapping
from vbackup.docs.markdown import GENERATED, escaped, table
from vbackup.registry import Registry

ROOT = Path(__file__).parents[2]
Node = Mapping[str, Any]

INTRODUCTION = """# Configuration reference

Every key, made from the code. [Configuration](configuration.md) says how such a file is written and read.
`vbackup schema` prints the same for editors, with the options of all plugins that you have.

A *required* key must be there. Where no default stands, the meaning says what is done without the key. What a type is
good for stands in its manual.
"""
SECTIONS = {
    "hypervisors": "Where machines run.",
    "transports": "Where bytes are kept.",
    "targets": "How restore points are kept there.",
    "groups": "Machines that belong together.",
    "jobs": "Which machines go where.",
}
EXECUTOR = "What the work of jobs runs on; without it, threads of this process."
ENTRY = "The name of an entry is yours: letters, digits and `. _ -`, beginning with a letter or digit."
SHARED = "SecretRef"
"""What is used in many places is described once, at the end."""


def _pattern(written: Any) -> str:
    return str(TypeAdapter(written).json_schema()["pattern"])


QUANTITIES = "configuration.md#quantities"
TEXTS = {
    _pattern(Size): f"[size]({QUANTITIES})",
    _pattern(Rate): f"[rate]({QUANTITIES})",
    _pattern(Seconds): f"[time span]({QUANTITIES})",
    _pattern(MinuteOfDay): f"[time of day]({QUANTITIES})",
    _pattern(Days): f"[days]({QUANTITIES})",
    ALIAS: "name of an entry",
    SELECTOR: "[selector](configuration.md#selectors)",
    MEMBER: "`hypervisor:machine`",
}
SIMPLE = {"boolean": "`true` or `false`", "integer": "integer", "number": "number", "string": "text"}


def page(registry: Registry) -> str:
    """Return the page."""
    return "\n".join(_Reference(registry).lines()).rstrip() + "\n"


class _Reference:
    def __init__(self, registry: Registry) -> None:
        whole = model(registry).model_json_schema()
        self._sections: Mapping[str, Node] = whole["properties"]
        self._definitions: Mapping[str, Node] = whole["$defs"]
        self._registry = registry
        self._written: set[str] = set()

    def lines(self) -> list[str]:
        lines = [GENERATED, "", *INTRODUCTION.splitlines(), ""]
        for name, what in SECTIONS.items():
            (entry,) = self._sections[name]["patternProperties"].values()
            lines += [f"## {name}", "", f"{what} {ENTRY}" if name == "hypervisors" else what, ""]
            lines += self._types(name, entry) if "$ref" not in entry else self._keys("", self._resolved(entry))
        executors = self._sections["executor"]
        lines += ["## executor", "", EXECUTOR, ""]
        lines += self._types("executors", executors) if "$ref" not in executors else self._only_type(executors)
        secret = self._definitions[SHARED]
        return [*lines, "## Secrets", "", escaped(secret["description"]), "", *self._keys("", secret)]

    def _only_type(self, entry: Node) -> list[str]:
        found = self._resolved(entry)
        kind = found["properties"]["type"]["const"]
        return [f"### `type: {kind}`", "", *self._keys("", found, {"type"})]

    def _types(self, role: str, union: Node, level: str = "###") -> list[str]:
        """Return what stands under each ``type:``, and before it what they have in common."""
        lines: list[str] = []
        common = {"type"}
        entries = {name: self._definitions[ref.rpartition("/")[2]] for name, ref in _mapping(union).items()}
        if role == "transports":
            shared = [str(field.alias or name) for name, field in Wrapping.model_fields.items()]
            lines += [f"{level} Every transport", ""]
            lines += self._keys("", _only(next(iter(entries.values())), shared), level="####")
            common |= set(shared)
        for name, entry in entries.items():
            lines += [f"{level} `type: {name}`", "", *self._manual(role, name)]
            lines += self._keys("", entry, common, level="####")
        return lines

    def _manual(self, role: str, name: str) -> list[str]:
        package = getattr(self._registry, role)[name].__module__.partition(".")[0]
        if not (ROOT / "plugins" / package / "README.md").exists():
            return []
        return [f"[Manual](../../../plugins/{package}/README.md).", ""]

    def _keys(self, path: str, node: Node, left_out: Collection[str] = (), *, level: str = "###") -> list[str]:
        """Return a table of an object's keys, and then, with headings of ``level``, of those of the objects in it."""
        keys = {name: key for name, key in node["properties"].items() if name not in left_out}
        if not keys:
            return ["It has no keys beside `type`.", ""]
        rows = []
        within: list[str] = []
        for name, key in keys.items():
            required = name in node.get("required", ())
            shown = "*required*" if required else self._default(key)
            rows.append((f"`{name}`", self._type(key), shown, self._meaning(key)))
            within += self._within(f"{path}{name}", key, level)
        return [*table(("key", "type", "default", "meaning"), rows), *within]

    def _meaning(self, key: Node) -> str:
        return escaped(key.get("description", ""))

    def _within(self, path: str, key: Node, level: str) -> list[str]:
        """Return the sections of what is nested in a key."""
        lines: list[str] = []
        for part in self._parts(key):
            if "discriminator" in part:
                lines += [f"### {path}", "", *self._types("codecs", part, "####")]
            elif "$ref" in part and part["$ref"].rpartition("/")[2] not in {SHARED, *self._written}:
                self._written.add(part["$ref"].rpartition("/")[2])
                found = self._object(part)
                lines += [f"{level} `{path}`", "", escaped(found["description"]), ""]
                lines += self._keys(f"{path}.", found, level=level)
        return lines

    def _parts(self, node: Node) -> list[Node]:
        """Return the parts of a type that may be objects."""
        if "discriminator" in node or "$ref" in node:
            return [node]
        inner = [*node.get("anyOf", ()), *([node["items"]] if "items" in node else ())]
        inner += [part for part in (node.get("additionalProperties"),) if isinstance(part, Mapping)]
        inner += node.get("patternProperties", {}).values()
        return [found for part in inner for found in self._parts(part)]

    def _object(self, reference: Node) -> Node:
        node = self._resolved(reference)
        return next((part for part in node.get("anyOf", ()) if "properties" in part), node)

    def _resolved(self, node: Node) -> Node:
        return self._definitions[node["$ref"].rpartition("/")[2]]

    def _type(self, node: Node) -> str:
        if "$ref" in node:
            return self._named(node)
        if "anyOf" in node:
            kinds = [self._type(part) for part in node["anyOf"] if part.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
        if "enum" in node or "const" in node:
            words = [word for word in node.get("enum", [node.get("const")]) if not isinstance(word, bool)]
            return ", ".join(f"`{word}`" for word in words)
        if "discriminator" in node:
            return "mapping with a `type`, see below"
        if node.get("type") == "array":
            return f"list of {self._type(node['items'])}".replace("list of mapping", "list of mappings")
        if node.get("type") == "object":
            (value,) = node.get("patternProperties", {"": node.get("additionalProperties")}).values()
            return f"mapping of names to {self._type(value)}"
        return _scalar(node)

    def _named(self, reference: Node) -> str:
        name = reference["$ref"].rpartition("/")[2]
        if name == SHARED:
            return "[secret](#secrets)"
        node = self._definitions[name]
        if "enum" in node:
            return self._type(node)
        return "path or mapping" if "anyOf" in node else "mapping, see below"

    def _default(self, key: Node) -> str:
        value = key.get("default")
        if value is None or value == [] or value == {} or value == "":
            return ""
        if isinstance(value, bool) and "yes" in key.get("enum", ()):
            return "`yes`" if value else "`no`"
        if key.get("pattern") == _pattern(Seconds) and isinstance(value, float):
            return f"`{value / 60:g}m`"
        return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _mapping(union: Node) -> Mapping[str, str]:
    found: Mapping[str, str] = union["discriminator"]["mapping"]
    return found


def _only(node: Node, keys: list[str]) -> Node:
    return {**node, "properties": {key: node["properties"][key] for key in keys}}


def _scalar(node: Node) -> str:
    if node.get("pattern") in TEXTS:
        return TEXTS[node["pattern"]]
    if node.get("format") == "path":
        return "path"
    kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
    text = " or ".join(SIMPLE[kind] for kind in kinds)
    least = node.get("minimum", node.get("exclusiveMinimum"))
    most = node.get("maximum", node.get("exclusiveMaximum"))
    if least is not None and most is not None:
        return f"{text}, {least} to {most}"
    return f"{text}, at least {least}" if least is not None else text
