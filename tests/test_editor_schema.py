"""What editors make of ``vbackup schema``: they read draft 7, and show what a stranger's plugin says of its options.

VS Code's YAML extension follows draft 7 (``if`` and ``then`` included), and completes and explains from ``properties``,
``enum``, ``default`` and ``description``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import pytest
from jsonschema import Draft7Validator
from pydantic import BaseModel, Field

from vbackup.api import Options, Register, SecretRef, Transport, hookimpl
from vbackup.config import schema
from vbackup.config.draft7 import draft7
from vbackup.registry import Registry
from vbackup.testing.transports import MemoryTransport


class Plain(Options):
    kind: Literal["plain"]
    user: str


class Signed(Options):
    kind: Literal["signed", "sealed"]
    key: SecretRef = Field(description="what it is signed with")


class Node(BaseModel):
    first: Node | None = None
    second: Node = Field(default=None, description="beside a reference")  # type: ignore[assignment]


class CloudOptions(Options):
    """Objects in the cloud."""

    bucket: str = Field(description="where objects are kept")
    region: Literal["here", "there"] = Field(default="here", description="which site")
    shards: tuple[int, str] = Field(default=(1, "a"), description="how many, and what for")
    login: Annotated[Plain | Signed, Field(discriminator="kind")] | None = None


class Cloud(MemoryTransport):
    name: ClassVar[str] = "cloud"
    options: ClassVar[type[BaseModel]] = CloudOptions


class Plugin:
    @hookimpl
    def vbackup_register_transports(self, register: Register[type[Transport]]) -> None:
        register(Cloud)


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    registry = Registry.load()
    registry.register(Plugin(), "cloud")
    return schema(registry)


@pytest.fixture(scope="module")
def editor(whole: dict[str, Any]) -> Draft7Validator:
    Draft7Validator.check_schema(whole)
    return Draft7Validator(whole)


def wrong(editor: Draft7Validator, section: str, entry: object) -> list[tuple[str, str]]:
    """Return where in an entry something is wrong, and what."""
    errors = editor.iter_errors({section: {"mine": entry}})
    return [("/".join(map(str, list(error.absolute_path)[2:])), error.message) for error in errors]


def test_a_good_entry_is_good(editor: Draft7Validator) -> None:
    signed = {"kind": "sealed", "key": {"file": "/k"}}
    for more in ({}, {"region": "there", "shards": [3, "b"]}, {"login": signed}, {"login": None}, {"read_only": True}):
        assert wrong(editor, "transports", {"type": "cloud", "bucket": "b", **more}) == []


@pytest.mark.parametrize(
    ("more", "where", "what"),
    [
        ({"buckte": "b"}, "", "'buckte' was unexpected"),
        ({"region": "nowhere"}, "region", "'nowhere' is not one of ['here', 'there']"),
        ({"bucket": 1}, "bucket", "1 is not of type 'string'"),
        ({"shards": ["x", "b"]}, "shards/0", "'x' is not of type 'integer'"),
        ({"type": "clowd"}, "type", "'clowd' is not one of ['cloud', 'iscsi', "),
        ({"retry": {"deadline": "soon"}}, "retry", "is not valid under any of the given schemas"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(
    editor: Draft7Validator, more: dict[str, object], where: str, what: str
) -> None:
    ((at, message),) = wrong(editor, "transports", {"type": "cloud", "bucket": "b", **more})
    assert at == where
    assert what in message


def test_what_is_missing_is_named(editor: Draft7Validator) -> None:
    assert wrong(editor, "transports", {"type": "cloud"}) == [("", "'bucket' is a required property")]
    assert wrong(editor, "transports", {"bucket": "b"}) == [("", "'type' is a required property")]
    assert wrong(editor, "transports", "cloud") == [("", "'cloud' is not of type 'object'")]


def test_steps_of_a_target_are_told_apart_too(editor: Draft7Validator) -> None:
    entry = {"type": "repository", "transport": "mine", "key": {"file": "/k"}}
    assert wrong(editor, "targets", {**entry, "codecs": [{"type": "zstd", "level": 99}]}) == [
        ("codecs/0/level", "99 is greater than the maximum of 22")
    ]


def test_an_alias_that_is_none_is_refused(editor: Draft7Validator) -> None:
    assert not editor.is_valid({"transports": {"not good": {"type": "cloud", "bucket": "b"}}})


def test_what_there_is_to_complete_and_to_explain(whole: dict[str, Any]) -> None:
    (entry,) = whole["properties"]["transports"]["patternProperties"].values()
    kind = entry["properties"]["type"]
    assert {"cloud", "local", "s3"} <= set(kind["enum"])
    assert "`vbackup plugins` lists them" in kind["description"]
    (chosen,) = [each["then"] for each in entry["allOf"] if each["if"]["properties"]["type"] == {"const": "cloud"}]
    cloud = whole["$defs"][chosen["$ref"].removeprefix("#/$defs/")]
    assert cloud["description"] == "Objects in the cloud."
    region = cloud["properties"]["region"]
    assert (region["enum"], region["default"], region["description"]) == (["here", "there"], "here", "which site")


def test_what_stands_beside_a_reference_is_kept(whole: dict[str, Any]) -> None:
    """Draft 7 ignores it there: what a secret is for would not be shown."""
    key = whole["$defs"]["Signed"]["properties"]["key"]
    assert key["description"] == "what it is signed with"
    assert key["properties"].keys() == {"env", "file", "credential", "command"}
    assert [node for node in nodes(whole) if "$ref" in node and len(node) > 1] == []


def test_a_secret_has_one_key_and_room_to_complete_it(whole: dict[str, Any], editor: Draft7Validator) -> None:
    assert "maxProperties" not in whole["$defs"]["SecretRef"]
    entry = {"type": "repository", "transport": "mine"}
    for good in ({"env": "A"}, {"command": ["pass", "vbackup"]}):
        assert wrong(editor, "targets", {**entry, "key": good}) == []
    for bad in ({}, {"env": "A", "file": "/b"}, {"fiel": "/b"}, "literal"):
        assert {where for where, _ in wrong(editor, "targets", {**entry, "key": bad})} == {"key"}


def test_defaults_that_are_of_no_use_are_not_written(whole: dict[str, Any]) -> None:
    """Others are: an editor puts them behind the key."""
    repository = whole["$defs"]["targets_repository"]["properties"]
    assert repository["chunk_size"]["default"] == 65536
    assert repository["recipients"]["default"] == []
    assert "default" not in repository["codecs"]  # a list of mappings
    assert [node for node in nodes(whole) if node.get("default", ...) is None] == []


def test_a_model_that_has_itself_inside() -> None:
    made = draft7(Node.model_json_schema())
    Draft7Validator.check_schema(made)
    assert Draft7Validator(made).is_valid({"first": {"first": None}, "second": {"second": {}}})
    assert not Draft7Validator(made).is_valid({"first": {"second": {"first": 1}}})


def test_a_union_that_a_number_tells_apart_stays_a_union() -> None:
    class One(BaseModel):
        version: Literal[1]

    class Two(BaseModel):
        version: Literal[2]

    class Both(BaseModel):
        each: Annotated[One | Two, Field(discriminator="version")]

    made = draft7(Both.model_json_schema())
    assert Draft7Validator(made).is_valid({"each": {"version": 2}})
    assert not Draft7Validator(made).is_valid({"each": {"version": 3}})


def test_keys_and_values_may_be_called_like_words_of_json_schema() -> None:
    class Odd(BaseModel):
        discriminator: dict[str, str] = Field(default={"prefixItems": "x", "oneOf": "y"}, alias="oneOf")
        items: int = Field(default=1, alias="discriminator")

    made = draft7(Odd.model_json_schema())
    Draft7Validator.check_schema(made)
    assert made["properties"]["oneOf"]["default"] == {"prefixItems": "x", "oneOf": "y"}
    assert Draft7Validator(made).is_valid({"oneOf": {"a": "b"}, "discriminator": 2})
    assert not Draft7Validator(made).is_valid({"discriminator": "two"})


def test_every_option_has_a_meaning() -> None:
    """Of what we bring: strangers are asked for the same."""
    found = schema(Registry.load())["$defs"]
    assert [
        f"{name}.{key}" for name, each in found.items() for key, value in each.get("properties", {}).items()
        if not value.get("description")
    ] == []  # fmt: skip


def nodes(value: object) -> Iterator[dict[str, Any]]:
    """Yield all mappings in a schema."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from nodes(inner)
