"""Reading a YAML file into plain values, remembering where each one stood.

The node graph is walked here instead of letting the YAML library build objects: so every key and value has its place,
duplicates, tags and aliases are ours to judge, and no message of the library (which may quote a secret) gets out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import Node, ScalarNode
from ruamel.yaml.reader import ReaderError

from vbackup.api import ConfigError

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
"""Values in a file once its aliases are followed: what a bomb of aliases would exceed."""

_TAG = "tag:yaml.org,2002:"
_CONVERTED = {_TAG + kind for kind in ("int", "float", "bool", "null")}
_TEXT = {_TAG + kind for kind in ("str", "timestamp", "value")}

Path_ = tuple[str | int, ...]
"""Where a value is in the document: keys and, in lists, positions."""


class Place(NamedTuple):
    """A place in the file, counted from 1."""

    line: int
    column: int


class Problem(NamedTuple):
    """One thing that is wrong, and where."""

    place: Place
    path: str
    message: str


@dataclass(frozen=True, slots=True)
class Document:
    """A file's values, and where each of them and its key stands."""

    name: str
    data: Any
    keys: Mapping[Path_, Place]
    values: Mapping[Path_, Place]


def read(path: Path) -> Document:
    """Read the file at ``path``. Raises: `ConfigError`."""
    text = _decode(str(path), _bytes(path))
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
        if root is None:
            raise _error(str(path), Place(1, 1), "the file is empty", hint="See config/vbackup.example.yaml.")
        walk = _Walk(yaml)
        data = walk.value(root, ())
    except ReaderError as error:
        place = _place_at(text, error.position)
        raise _error(str(path), place, f"character U+{ord(text[error.position]):04X} is not allowed in YAML") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        raise _error(str(path), place, f"not YAML: {_without_quotes(error)}") from None
    except YAMLError as error:
        raise _error(str(path), Place(1, 1), f"not YAML ({type(error).__name__})") from None
    except RecursionError:
        raise _error(str(path), Place(1, 1), "it is nested too deeply") from None
    if walk.problems:
        raise failed(str(path), walk.problems)
    return Document(str(path), data, walk.keys, walk.values)


def failed(name: str, problems: list[Problem]) -> ConfigError:
    """Return the error that lists ``problems``, one a line, as ``file:line:column: path: what is wrong``."""
    lines = [
        f"{name}:{place.line}:{place.column}: {f'{path}: ' if path else ''}{message}"
        for place, path, message in sorted(problems)
    ]
    return ConfigError("\n".join(lines))


def dotted(path: Path_) -> str:
    """Return a path as it is shown to people."""
    return ".".join(str(part) for part in path)


@dataclass(slots=True)
class _Walk:
    """Turns nodes into values, noting places and problems on the way."""

    yaml: YAML
    keys: dict[Path_, Place] = field(default_factory=dict)
    values: dict[Path_, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    count: int = 0
    open: list[Node] = field(default_factory=list)

    def value(self, node: Node, path: Path_) -> Any:
        self.values[path] = _place(node)
        self.count += 1
        if any(node is parent for parent in self.open):
            return self._problem(node, path, "an alias must not contain itself")
        if self.count > MAX_NODES:
            if self.count == MAX_NODES + 1:
                self._problem(node, path, f"more than {MAX_NODES} values, aliases counted each time")
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            return self._problem(node, path, "YAML tags (!...) are not supported; quote a text that starts with '!'")
        self.open.append(node)
        try:
            return self._mapping(node, path) if node.tag == _TAG + "map" else self._sequence(node, path)
        finally:
            self.open.pop()

    def _scalar(self, node: ScalarNode, path: Path_) -> Any:
        if node.tag in _TEXT:
            return node.value
        if node.tag not in _CONVERTED:
            return self._problem(node, path, "YAML tags (!...) are not supported; quote a text that starts with '!'")
        try:
            return self.yaml.constructor.construct_object(node)
        except (ValueError, OverflowError):
            return self._problem(node, path, "this number cannot be read")

    def _sequence(self, node: Node, path: Path_) -> list[Any]:
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: Node, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._problem(key_node, path, "a key must be a plain text")
            elif key_node.tag == _TAG + "merge":
                self._problem(key_node, path, "merge keys (<<) are not supported")
            else:
                self._item(result, key_node, value_node, (*path, str(key_node.value)))
        return result

    def _item(self, result: dict[str, Any], key_node: Node, value_node: Node, path: Path_) -> None:
        if path in self.keys and path[-1] in result:
            self._problem(key_node, path, f"this key is here twice, first on line {self.keys[path].line}")
            return
        self.keys[path] = _place(key_node)
        result[str(path[-1])] = self.value(value_node, path)

    def _problem(self, node: Node, path: Path_, message: str) -> None:
        self.problems.append(Problem(_place(node), dotted(path), message))


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}", hint="Name one with -c FILE.") from None
    except OSError as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise _error(str(path), Place(1, 1), f"the file is larger than {MAX_BYTES >> 20} MiB")
    return raw


def _decode(name: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        raise _error(name, _place_at(before, len(before)), "the file is not UTF-8 text") from None


def _error(name: str, place: Place, message: str, *, hint: str = "") -> ConfigError:
    return ConfigError(f"{name}:{place.line}:{place.column}: {message}", hint=hint)


def _place(node: Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _place_at(text: str, position: int) -> Place:
    line_start = text.rfind("\n", 0, position) + 1
    return Place(text.count("\n", 0, position) + 1, position - line_start + 1)


def _without_quotes(error: MarkedYAMLError) -> str:
    """Return what the library says, without what it quotes of the file: that may be (a part of) a secret."""
    said = ", ".join(part for part in (error.context, error.problem) if part)
    if "'\\t'" in said:
        return "a tab cannot be used for indentation"
    single_or_rest = r"""(['"])(?:\\.|.)\1|['"].*"""
    return re.sub(single_or_rest, lambda quoted: quoted[0] if quoted[1] else "...", said, flags=re.DOTALL)
