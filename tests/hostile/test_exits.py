"""What ends a program, raised by a plugin: it ends no command of vbackup's own as if all was well."""

from __future__ import annotations

import json

import pytest

from tests.hostile.conftest import Place

CHECKED = """
import click
from pydantic import field_validator
from stranger_tame import *
del vbackup_register_hypervisors, vbackup_register_transports
class Checked(Options):
    word: str = "none"
    @field_validator("word")
    @classmethod
    def _look(cls, word):
        {}
class Wild(Lab):
    name = "wild"
    options = Checked
@hookimpl
def vbackup_register_hypervisors(register):
    register(Wild)
"""
ENDS = {
    "exit 0": ("raise SystemExit(0)", "SystemExit: 0"),
    "exit": ("raise SystemExit", "SystemExit"),
    "exit of click": ("raise click.exceptions.Exit(0)", "Exit: 0"),
    "exit by click": ("click.get_current_context().exit()", "Exit: 0"),
    "usage": ("raise click.UsageError('no')", "UsageError: no"),
    "abort": ("raise click.Abort", "Abort"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "error": ("raise RuntimeError('no')", "RuntimeError: no"),
    "error that exits when it is shown": (
        "raise type('Late', (ValueError,), {'__str__': lambda self: exit(0)})", "SystemExit: 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "said"), ENDS.values(), ids=ENDS)
def test_options_that_end_the_program_while_they_are_checked_are_named(place: Place, statement: str, said: str) -> None:
    place.install("wild", CHECKED.format(statement))
    place.config["hypervisors"]["lab"] = {"type": "wild", "word": "any"}
    told = f"plugin 'wild', its code: raised {said} (its options were checked)"
    place.refused("run", by=told)
    refused = json.loads(place.refused("--json", "run", by=told).out)["error"]
    assert (refused["kind"], refused["message"]) == ("plugin", told)
    looked = place.vbackup("doctor")
    assert (looked.code, told in looked.out) == (1, True)
    place.config["hypervisors"]["lab"] = {"type": "tame"}
    place.prove()


NAMED = """
def machines(self):
    class Name(str):
        {}
    return [MachineRef({}) for ref in super().machines()]
"""


@pytest.mark.parametrize(
    "ref", ["Name(ref.name), ref.id, ref.running", "ref.name, Name(ref.id), ref.running"], ids=["name", "id"]
)
@pytest.mark.parametrize("method", ["__hash__", "__format__", "__repr__"])
def test_a_name_that_ends_the_program_when_it_is_used_is_refused(place: Place, method: str, ref: str) -> None:
    place.wild("hypervisors", "Lab", NAMED.format(f"def {method}(self, *of): raise SystemExit(0)", ref))
    told = "plugin 'wild', hypervisor lab (type wild): machines gave a machine whose name, id or folder is no text"
    place.refused("run", by=told)
    place.prove()


def test_a_label_that_ends_the_program_when_it_is_used_is_refused(place: Place) -> None:
    label = "labels=frozenset([(Name('tag'), 'daily')])"
    body = NAMED.format("def __format__(self, *of): raise SystemExit(0)", f"ref.name, ref.id, ref.running, {label}")
    place.wild("hypervisors", "Lab", body)
    place.refused("run", by="plugin 'wild', hypervisor lab (type wild): machines gave 'web' with `running` or `labels`")
    place.prove()


@pytest.mark.parametrize("statement", ["raise SystemExit(0)", "raise __import__('click').exceptions.Exit(0)"])
def test_what_ends_the_program_far_from_a_call_is_a_failure(place: Place, statement: str) -> None:
    place.wild("hypervisors", "Lab", f"""
    def check(self):
        class Text(str):
            def __format__(self, spec):
                {statement}
        return [Finding("disks", Level.OK, Text("fine"))]
    """)  # fmt: skip
    place.refused("doctor", by="plugin 'wild', its code: raised ")


COMMANDS = """
import click
from vbackup.api import hookimpl
@click.command("leave")
@click.argument("how")
@click.pass_context
def leave(context, how):
    if how == "left":
        raise SystemExit(7)
    if how == "usage":
        raise click.UsageError("not so")
    context.exit(5)
@hookimpl
def vbackup_register_commands(register):
    register(leave)
"""


@pytest.mark.parametrize(("how", "code"), [("left", 7), ("usage", 2), ("exit", 5), ("--help", 0)])
def test_a_command_of_a_plugin_may_end_as_it_likes(place: Place, how: str, code: int) -> None:
    place.install("wild", COMMANDS)
    assert place.vbackup("leave", how).code == code
