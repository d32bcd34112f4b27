"""Wrong usage, wrong configurations and what fails: a message, a hint and an exit code, and never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commandline import Vbackup, place, ready, vbackup
from vbackup.api import GuestError
from vbackup.cli.main import COMMANDS

__all__ = ["place", "ready", "vbackup"]  # fixtures

USAGE = {
    "no such command": (("lst",), "No such command 'lst'. Did you mean 'list'?"),
    "no such option": (("list", "--jsn"), "No such option '--jsn'. Did you mean '--json'?"),
    "missing argument": (("show",), "Missing argument 'POINT'."),
    "one argument too many": (("list", "a", "b"), "unexpected extra argument"),
    "disk without a path": (("restore", "x", "--disk", "vda"), "'vda' is not KEY=PATH"),
    "disk twice": (("restore", "x", "--disk", "a=1", "--disk", "a=2"), "'a' is there twice."),
    "unknown format": (("restore", "x", "--format", "vmdk"), "'vmdk' is not one of 'raw', 'qcow2'"),
    "nothing to delete": (("delete",), "Missing argument 'POINT ...'."),
    "nothing to protect": (("protect", "--reason", "x"), "Missing argument 'POINT ...'."),
    "nothing to unprotect": (("unprotect",), "Missing argument 'POINT ...'."),
    "no size": (("prune", "--rewrite", "5 apples"), "'5 apples' is not a size, as in 500M or 1.5GiB."),
    "size in powers of ten": (("prune", "--rewrite", "5GB"), "'5GB' is not a size"),
    "negative size": (("prune", "--rewrite", "-1"), "'-1' is not a size"),
}


@pytest.mark.parametrize(("args", "message"), USAGE.values(), ids=USAGE)
def test_wrong_usage_ends_with_two(vbackup: Vbackup, args: tuple[str, ...], message: str) -> None:
    outcome = vbackup(*args)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    as_json = vbackup("--json", *args)
    assert as_json.code == 2
    assert as_json.json["error"]["kind"] == "usage"
    assert message in as_json.json["error"]["message"]


def test_nothing_at_all_shows_the_help(vbackup: Vbackup) -> None:
    outcome = vbackup()
    assert outcome.code == 2
    assert all(f"\n  {name} " in outcome.err for name in COMMANDS)


@pytest.mark.parametrize(
    "args",
    [
        ("list",),
        ("run",),
        ("init",),
        ("restore", "a@latest"),
        ("verify",),
        ("delete", "x"),
        ("prune",),
        ("protect", "x"),
    ],
)
def test_a_wrong_configuration_ends_with_two_and_a_line_for_each_mistake(
    place: Path, vbackup: Vbackup, args: tuple[str, ...]
) -> None:
    (place / "vbackup.yaml").write_text("transports: {}\njobz: {}\ntarget: {}\n")
    outcome = vbackup(*args)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "vbackup: error: vbackup.yaml:2:1: jobz: unknown key; did you mean 'jobs'?\n"
        "vbackup: error: vbackup.yaml:3:1: target: unknown key; did you mean 'targets'?\n"
    )
    error = vbackup(*args, "--json").json["error"]
    assert error["kind"] == "config"
    assert len(error["message"].splitlines()) == 2


def test_no_configuration_says_where_it_was_looked_for(place: Path, vbackup: Vbackup) -> None:
    (place / "vbackup.yaml").unlink()
    outcome = vbackup("list")
    assert outcome.code == 2
    assert "there is no configuration: neither ./vbackup.yaml nor " in outcome.err
    assert "\nhint: Name one with -c FILE" in outcome.err
    assert "there is no configuration file other.yaml" in vbackup("-c", "other.yaml", "list").err


def test_what_is_not_there_ends_with_one(ready: Vbackup) -> None:
    outcome = ready("show", "nobody@latest")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("vbackup: error: ")
    assert ready("show", "nobody@latest", "--json").json["error"]["kind"] == "not-found"


def test_names_that_match_nothing_end_with_two(ready: Vbackup) -> None:
    outcome = ready("run", "weekly")
    assert outcome.code == 2
    assert "'weekly'" in outcome.err


def test_no_error_ends_in_a_traceback_unless_asked(ready: Vbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_(*args: object) -> None:
        raise ZeroDivisionError("of the test")

    monkeypatch.setattr("vbackup.jobs.points.survey", break_)
    outcome = ready("list")
    assert outcome.code == 1
    assert outcome.err.startswith("vbackup: error: ZeroDivisionError: of the test\nhint: This is a fault of vbackup")
    assert ready("--json", "list").json["error"]["kind"] == "internal"
    monkeypatch.setenv("VBACKUP_DEBUG", "1")
    assert "Traceback (most recent call last)" in ready("list").err


def test_errors_of_the_tree_carry_their_kind_and_hint(vbackup: Vbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise GuestError("web did not freeze", hint="install the agent")

    monkeypatch.setattr("vbackup.jobs.init.init", refuse)
    outcome = vbackup("init", "--json")
    error = {"kind": "guest", "message": "web did not freeze", "hint": "install the agent"}
    assert (outcome.code, outcome.json) == (1, {"error": error})
    assert outcome.err == "vbackup: error: web did not freeze\nhint: install the agent\n"
