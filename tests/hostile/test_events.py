"""Plugins that hear events, or bring commands, and misbehave."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from tests.hostile.conftest import Place
from vbackup.api import DiskProgress, JobFinished, JobProgress, JobStarted, hookimpl
from vbackup.registry import Registry, delivery

HOOKS = ("vbackup_job_started", "vbackup_job_progress", "vbackup_job_finished")
ERRORS = {
    "RuntimeError": "raise RuntimeError('no')",
    "SystemExit": "raise SystemExit(0)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "Gone": "raise type('Gone', (BaseException,), {})('away')",
    "Mute": "raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})",
}


@pytest.mark.parametrize(("name", "statement"), ERRORS.items())
def test_what_a_hook_raises_is_told_once_and_stops_nothing(place: Place, name: str, statement: str) -> None:
    hooks = "\n".join(f"@hookimpl\ndef {hook}(event):\n    {statement}" for hook in HOOKS)
    place.install("wild", f"from vbackup.api import hookimpl\n{hooks}\n")
    outcome = place.vbackup("run")
    assert outcome.code in (0, 3)
    for hook in HOOKS:
        assert outcome.err.count(f"plugin 'wild': {hook} raised {name}\n") == 1
    place.prove()


def test_a_hook_changes_nothing(place: Place) -> None:
    """What it is given cannot be written to."""
    hooks = "@hookimpl\ndef vbackup_job_finished(event):\n    event.point = 'x'"
    place.install("wild", f"from vbackup.api import hookimpl\n{hooks}\n")
    assert "vbackup_job_finished raised FrozenInstanceError" in place.vbackup("run").err
    place.prove()


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_hangs_holds_no_backup_up(place: Place, monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    monkeypatch.setattr(delivery, "PATIENCE", 0.2)
    hangs = f"@hookimpl\ndef {hook}(event):\n    import stranger_tame\n    stranger_tame.GO.wait()"
    place.install("wild", f"from vbackup.api import hookimpl\n{hangs}\n")
    try:
        outcome = place.vbackup("run")
    finally:
        sys.modules["stranger_tame"].GO.set()
    assert outcome.code in (0, 3)
    assert f"plugin 'wild': {hook} has not returned for 0.2 s; nobody waits for it any more" in outcome.err
    assert "VBACKUP_DISABLED_PLUGINS=wild" in outcome.err
    assert "plugin 'wild' did not hear of " in outcome.err
    place.prove()


def test_a_program_hears_all_events_although_a_plugin_hangs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "PATIENCE", 0.2)
    hangs = "@hookimpl\ndef vbackup_job_started(event):\n    import stranger_tame\n    stranger_tame.GO.wait()"
    place.install("wild", f"from vbackup.api import hookimpl\n{hangs}\n")
    try:
        outcome = place.vbackup("--json", "run")
    finally:
        sys.modules["stranger_tame"].GO.set()
    events = [json.loads(line)["event"] for line in outcome.out.splitlines()]
    assert events[0] == "started"
    assert events[-2:] == ["finished", "report"]


class Late:
    """Returns from its first event when it is let go."""

    def __init__(self, go: object) -> None:
        self.go = go
        self.heard: list[object] = []

    @hookimpl
    def vbackup_job_started(self, event: JobStarted) -> None:
        self.go.wait()  # type: ignore[attr-defined]
        self.heard.append(event)

    @hookimpl
    def vbackup_job_progress(self, event: JobProgress) -> None:
        self.heard.append(event)

    @hookimpl
    def vbackup_job_finished(self, event: JobFinished) -> None:
        self.heard.append(event)


def test_who_is_late_misses_progress_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import threading

    monkeypatch.setattr(delivery, "PATIENCE", 0.05)
    go = threading.Event()
    late, registry = Late(go), Registry()
    registry.register(late, "late")
    started, finished = JobStarted("j", "h", "m"), JobFinished("j", "h", "m")
    progress = JobProgress("j", "h", "m", DiskProgress("vda", 1, 1, 1, 0, 0, 0))
    registry.emit_started(started)
    for _ in range(5):
        registry.emit_progress(progress)
    registry.emit_finished(finished)
    assert late.heard == []
    go.set()
    monkeypatch.setattr(delivery, "PATIENCE", 60)
    with caplog.at_level(logging.ERROR):
        registry.settle()
    assert late.heard == [started, finished]
    assert "plugin 'late' did not hear of 5 events" in caplog.text
    registry.emit_progress(progress)  # it has caught up
    assert late.heard[-1] == progress


COMMAND = """
import click
from vbackup.api import hookimpl, ConfigError
@click.command("odd")
@click.pass_obj
def command(context):
    {body}
@hookimpl
def vbackup_register_commands(register):
    register(command)
"""


@pytest.mark.parametrize(("name", "statement"), [each for each in ERRORS.items() if each[0] != "SystemExit"])
def test_what_a_command_raises_is_told_with_its_plugin(place: Place, name: str, statement: str) -> None:
    place.install("wild", COMMAND.format(body=statement))
    outcome = place.vbackup("odd")
    assert f"vbackup: error: plugin 'wild', its code: raised {name}" in outcome.err
    assert "update or remove stranger_wild" in outcome.err
    assert outcome.code == 1


@pytest.mark.parametrize(
    ("statement", "code"), [("raise SystemExit(3)", 3), ("raise SystemExit", 0), ("raise click.Abort", 1)]
)
def test_a_command_may_end_as_those_of_click_do(place: Place, statement: str, code: int) -> None:
    place.install("wild", COMMAND.format(body=statement))
    outcome = place.vbackup("odd")
    assert outcome.code == code
    assert "wild" not in outcome.err


@pytest.mark.parametrize("given", ["True", "'done'", "None", "[1]", "0"])
def test_what_a_command_returns_is_an_exit_code_or_nothing(place: Place, given: str) -> None:
    place.install("wild", COMMAND.format(body=f"return {given}"))
    assert place.vbackup("odd").code == 0


def test_a_command_writes_nothing_that_a_terminal_obeys(place: Place) -> None:
    place.install("wild", COMMAND.format(body=r"context.write('\x1b]0;owned\x07'); raise ConfigError('\x1b[2J')"))
    outcome = place.vbackup("odd")
    assert "\x1b" not in outcome.out + outcome.err
    assert outcome.code == 2


def test_options_that_raise_are_told_with_their_plugin(place: Place) -> None:
    body = """
    class options(Options):
        from pydantic import model_validator
        @model_validator(mode="before")
        @classmethod
        def _no(cls, value): raise RuntimeError("no")
    """
    place.wild("hypervisors", "Lab", body)
    outcome = place.vbackup("run")
    assert "plugin 'wild', its code: raised RuntimeError: no" in outcome.err
    assert outcome.code == 1
    place.prove()


def test_options_that_fit_nowhere_are_told(place: Place) -> None:
    body = """
    class options(Options):
        @classmethod
        def __pydantic_init_subclass__(cls, **more):
            raise RuntimeError("no")
    """
    place.wild("hypervisors", "Lab", body)
    outcome = place.vbackup("run")
    assert "the options of hypervisors 'wild' cannot be made part of the configuration: RuntimeError: no" in outcome.err
    assert "VBACKUP_DISABLED_PLUGINS=NAME" in outcome.err
    assert outcome.code == 1
    place.prove()
