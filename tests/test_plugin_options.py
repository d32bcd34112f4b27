"""Options of strangers' classes that are hard to describe: they spoil nothing for others."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest
from jsonschema import Draft7Validator

from tests.test_plugins_command import CLOUD, Install, Run, install, listed, vbackup

__all__ = ["install", "vbackup"]  # fixtures


def test_options_that_have_no_words_are_anything(install: Install, vbackup: Run) -> None:
    install("cloud", dedent(CLOUD).replace("either: int | str | None = None", "call: Callable[[], int] = print"))
    assert listed(vbackup, "cloud")["options"]["transports"]["cloud"][-1]["type"] == "anything"
    assert vbackup("schema")[0] == 0


def test_options_that_have_themselves_inside_come_to_an_end(install: Install, vbackup: Run) -> None:
    tree = """
        from __future__ import annotations
        from typing_extensions import TypeAliasType
        Tree = TypeAliasType("Tree", "int | list[Tree] | dict[str, Tree]")
    """
    source = dedent(tree) + dedent(CLOUD).replace(
        "either: int | str | None = None", "tree: Tree = 1\n    left: Proxy | None = None"
    )
    source = source.replace("    port: int", "    next: Proxy | None = None\n    port: int")
    install("cloud", source)
    options = listed(vbackup, "cloud")["options"]["transports"]["cloud"]
    keys = [option["key"] for option in options]
    assert "left.next.next.port" in keys
    assert len(keys) < 100
    (tree,) = [option["type"] for option in options if option["key"] == "tree"]
    assert tree.startswith("integer or list of integer or list of ")


OPTIONS = "class CloudOptions(Options):\n"
SILENT = {
    "code that fails": (
        OPTIONS + "    @classmethod\n    def __get_pydantic_json_schema__(cls, *_): raise SystemExit(0)\n",
        "cannot be described: SystemExit: 0",
    ),
    "not JSON": (
        OPTIONS + "    model_config = {'json_schema_extra': {'examples': [object()]}}\n",
        "cannot be described: TypeError: Object of type object is not JSON serializable",
    ),
    "an infinite choice": (
        OPTIONS + "    size: Literal[float('inf')] = float('inf')\n", "cannot be described: ValueError: Out of range",
    ),
    "a type that is nowhere": (OPTIONS + "    size: 'Nowhere' = 1\n", "cannot be made part of the configuration: "),
    "no class of its own": (
        "class Base(Options):\n    def __init_subclass__(cls, **_): cls.__name__ == 'CloudOptions' or exit()\n"
        + OPTIONS.replace("(Options)", "(Base)"),
        "cannot be made part of the configuration: SystemExit",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "said"), SILENT.values(), ids=SILENT)
def test_options_that_cannot_be_described_are_left_open_and_spoil_nothing(
    install: Install, vbackup: Run, tmp_path: Path, options: str, said: str
) -> None:
    install("cloud", dedent(CLOUD).replace(OPTIONS, options))
    code, out, err = vbackup("schema")
    blamed = "vbackup: warning: plugin 'cloud', its options: "
    assert code == 0
    assert err.startswith(blamed)
    assert said in err
    assert err.endswith(" or run without it: VBACKUP_DISABLED_PLUGINS=cloud)\n")
    editor = Draft7Validator(json.loads(out))
    assert editor.is_valid({"transports": {"a": {"type": "cloud", "anything": [1]}}})
    assert not editor.is_valid({"transports": {"a": {"type": "local", "anything": [1]}}})
    file = tmp_path / "vbackup.yaml"
    file.write_text("transports:\n  a: {type: local, paht: /b}\n")
    code, _, err = vbackup("-c", str(file), "list")
    assert code == 2
    assert f"vbackup: error: {file}:2:20: transports.a.paht: unknown key; did you mean 'path'?\n" in err


def test_options_that_make_no_model_are_found_by_the_doctor(install: Install, vbackup: Run, tmp_path: Path) -> None:
    install("cloud", dedent(CLOUD).replace(OPTIONS, SILENT["a type that is nowhere"][0]))
    file = tmp_path / "vbackup.yaml"
    file.write_text("transports:\n  a: {type: cloud, bucket: b}\n")
    code, out, _ = vbackup("-c", str(file), "doctor")
    assert code == 1
    said = "the options of transports 'cloud' cannot be made part of the configuration: PydanticUndefinedAnnotation: "
    assert f"error    configuration: {said}name 'Nowhere' is not defined" in out


def test_they_are_told_of_among_all_plugins(install: Install, vbackup: Run) -> None:
    install("cloud", dedent(CLOUD).replace(OPTIONS, SILENT["not JSON"][0]))
    said = "plugin 'cloud', its options: CloudOptions cannot be described: TypeError: "
    code, out, err = vbackup("plugins", "--json")
    plugins = {plugin["name"]: plugin for plugin in json.loads(out)}
    assert code == 0
    assert err.startswith(f"vbackup: warning: {said}")
    assert plugins["cloud"]["options"] == {}
    assert plugins["local"]["options"]["transports"]["local"][0]["key"] == "path"
    code, out, err = vbackup("plugins", "cloud")
    assert "brings       transports: cloud; events: finished\n" in out
    assert said in err


def test_defaults_and_limits_that_json_has_no_number_for_are_left_out(install: Install, vbackup: Run) -> None:
    more = """
    deadline: float = float("inf")
    pause: float = Field(default=float("nan"), ge=float("-inf"), le=float("inf"))
"""
    install("cloud", dedent(CLOUD).replace("    either: int | str | None = None\n", more))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    out = vbackup("schema")[1]
    cloud = json.loads(out, parse_constant=refuse)["$defs"]["transports_cloud"]["properties"]
    assert cloud["deadline"].keys() == {"title", "type"}
    assert cloud["pause"].keys() == {"title", "type"}
    (plugin,) = json.loads(vbackup("plugins", "cloud", "--json")[1], parse_constant=refuse)
    options = {option["key"]: option for option in plugin["options"]["transports"]["cloud"]}
    assert [options[key]["default"] for key in ("deadline", "pause", "ratio")] == [None, None, 0.5]
