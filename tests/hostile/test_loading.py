"""Plugins that misbehave while they are imported and asked what they bring."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest

from tests.hostile.conftest import Place, released_by
from vbackup.guards import watch
from vbackup.registry import Registry, manager

GOOD = """
from stranger_tame import Zlib
from vbackup.api import hookimpl
class Wild(Zlib):
    name = "wild"
@hookimpl
def vbackup_register_codecs(register):
    register(Wild)
"""
REGISTERS = """
from vbackup.api import hookimpl
@hookimpl
def vbackup_register_codecs(register):
    {}
"""
ERRORS = {
    "RuntimeError": ("raise RuntimeError('no')", "RuntimeError: no"),
    "exit": ("raise SystemExit(0)", "SystemExit: 0"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "interrupt of its own": ("raise type('Mine', (KeyboardInterrupt,), {})('x')", "Mine: x"),
    "base exception": ("raise type('Gone', (BaseException,), {})('away')", "Gone: away"),
    "that cannot be shown": (
        "raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})", "Mute (which cannot be shown)",
    ),
    "many lines and colours": ("raise RuntimeError('one\\ntwo\\x1b[31m')", "RuntimeError: one two\\x1b[31m"),
    "recursion": ("(again := lambda: again())()", "RecursionError"),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "said"), ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("where", ["import", "register", "attribute"])
def test_what_is_raised_on_the_way_in_leaves_the_plugin_out(
    place: Place, statement: str, said: str, where: str
) -> None:
    source = {
        "import": f"{statement}\n",
        "register": REGISTERS.format(statement),
        "attribute": f"def __getattr__(name):\n    {statement}\n",
    }[where]
    place.install("wild", source)
    outcome = place.vbackup("run")
    assert "plugin 'wild' of stranger_wild is left out: " in outcome.err
    assert said in outcome.err
    assert outcome.code in (0, 3)  # nothing of it was needed
    assert "\x1b" not in outcome.err


META = """
class Meta(type):
    def __getattribute__(cls, name):
        raise OSError(name)
class Other(metaclass=Meta): pass
"""
SAID = """
class Said(dict):
    def {method}(self):
        raise OSError("no")
VBACKUP_BRINGS = Said(a=1)
"""
STRANGE = {
    "names that are code": (META, "its module raised OSError: __class__"),
    "what it brings is code": (SAID.format(method="items"), "its VBACKUP_BRINGS must be lists of names by role"),
    "what it brings cannot be shown": (SAID.format(method="__repr__"), "not a value of type Said"),
    "options are no model": ("Wild.options = dict", "class Wild has no `options`"),
    "options must be given": (
        "class Needs(Zlib.options):\n    word: str\nWild.options = Needs",
        "the options of Wild must all have defaults, as codecs are made without any: word",
    ),
    "a name for the terminal": (r"Wild.name = '\x1b[2J'", "class Wild has no usable `name`"),
    "a flag that is none": ("Wild.encrypts = 1", "`encrypts` of class Wild must be True or False"),
}


@pytest.mark.parametrize(("source", "said"), STRANGE.values(), ids=STRANGE)
def test_what_it_brings_is_looked_at(place: Place, source: str, said: str) -> None:
    place.install("wild", GOOD + source)
    outcome = place.vbackup("plugins")
    assert said in outcome.err
    assert outcome.code == 0
    assert "broken" in outcome.out


def test_a_name_of_two_plugins_comes_with_the_way_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first may wait, and turn out broken later: the second does not take its place by itself."""
    place.install("first", 'VBACKUP_BRINGS = {"codecs": ["wild"]}\n' + GOOD.replace("register(Wild)", "1 / 0"))
    place.install("wild", GOOD)
    said = "leave one of them out, VBACKUP_DISABLED_PLUGINS=first or VBACKUP_DISABLED_PLUGINS=wild\n"
    assert f"codecs 'wild' of plugin 'wild' is already that of plugin 'first': {said}" in place.vbackup("plugins").err
    monkeypatch.setenv("VBACKUP_DISABLED_PLUGINS", "first")
    assert Registry.load().codecs["wild"].__name__ == "Wild"


NOISY = """
import click
print("noise: import")
from stranger_tame import *
from vbackup.api import hookimpl
del vbackup_register_hypervisors, vbackup_register_transports
class Noisy(Lab):
    name = "wild"
    def machines(self):
        print("noise: machines")
        return super().machines()
@click.command("aloud")
def aloud():
    print("aloud")
@hookimpl
def vbackup_register_hypervisors(register):
    print("noise: register")
    register(Noisy)
@hookimpl
def vbackup_register_commands(register):
    register(aloud)
@hookimpl
def vbackup_job_started(event):
    print("noise: started")
"""


def test_what_a_plugin_prints_does_not_get_among_json(place: Place) -> None:
    place.install("wild", NOISY)
    place.config["hypervisors"]["lab"]["type"] = "wild"
    outcome = place.vbackup("run", "--json")
    events = [json.loads(line).get("event") for line in outcome.out.splitlines()]
    assert events[0] == "started"
    for noise in ("import", "register", "machines", "started"):
        assert f"noise: {noise}\n" in outcome.err
    assert json.loads(place.vbackup("plugins", "wild", "--json").out)[0]["status"] == "ok"


def test_a_command_of_a_plugin_may_print(place: Place) -> None:
    place.install("wild", NOISY)
    outcome = place.vbackup("aloud")
    assert outcome.out == "aloud\n"
    assert outcome.err == "noise: import\nnoise: register\n"


@pytest.mark.parametrize("where", ["import", "register"])
def test_a_plugin_that_takes_long_to_load_is_named(place: Place, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """It may hang for ever, which nothing can end; then this message is all that there is to go by."""
    monkeypatch.setattr(manager, "IMPORT_PATIENCE", 0.5)
    monkeypatch.setattr(watch, "_LOOK", 0.01)
    monkeypatch.setattr(watch, "WATCH", watch.Watch())
    monkeypatch.setattr(manager, "WATCH", watch.WATCH)
    waits = "import stranger_tame\nassert stranger_tame.GO.wait(60)\n"
    register = REGISTERS.format("import stranger_tame; assert stranger_tame.GO.wait(60)")
    place.install("wild", {"import": waits + GOOD, "register": register}[where])
    with released_by("plugin 'wild', its module: import has not returned for "):
        outcome = place.vbackup("plugins")
    assert (
        "(if it hangs: update or remove stranger_wild, or run without it: VBACKUP_DISABLED_PLUGINS=wild)" in outcome.err
    )


def test_calls_are_traced_with_plugin_and_hook_and_no_secret(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
    from vbackup.api import hookimpl
    @hookimpl
    def vbackup_job_started(event): pass
    @hookimpl
    def vbackup_job_finished(event): raise RuntimeError("canary-secret")
    """
    place.install("wild", dedent(source) + GOOD)
    monkeypatch.setenv("VBACKUP_TRACE_HOOKS", "1")
    monkeypatch.setenv("CANARY", "canary-secret-of-the-key")
    outcome = place.vbackup("run")
    lines = [line for line in outcome.err.splitlines() if line.startswith("hook ")]
    assert "hook wild: vbackup_register_codecs(register: function)" in lines
    assert "hook wild: vbackup_job_started(event: JobStarted)" in lines
    assert "hook wild: vbackup_job_finished raised RuntimeError" in lines
    assert "hook zstd: vbackup_register_codecs(register: function)" in lines
    assert all(len(line.split(": ", 1)) == 2 and " vbackup_" in line for line in lines)
    secrets = [(place.directory / "main.key").read_text().strip(), "canary-secret", "web"]
    assert not any(secret in line for line in lines for secret in secrets)


LATER = """
from __future__ import annotations
from stranger_tame import *
del vbackup_register_hypervisors, vbackup_register_transports
class Sometime(Options):
    later: Later | None = None
class Wild(Lab):
    name = "wild"
    options = Sometime
class Later(Options):
    word: str
@hookimpl
def vbackup_register_hypervisors(register):
    register(Wild)
"""


def test_options_may_name_what_is_defined_below_them(place: Place) -> None:
    place.install("wild", LATER)
    place.config["hypervisors"]["lab"] = {"type": "wild", "later": {"word": "so"}}
    assert place.vbackup("run").code in (0, 3)
    place.config["hypervisors"]["lab"] = {"type": "wild", "later": {"wrod": "so"}}
    assert "hypervisors.lab.later.wrod: unknown key; did you mean 'word'?" in place.vbackup("run").err
    outcome = place.vbackup("plugins", "wild")
    assert (outcome.code, "later.word" in outcome.out) == (0, True)
