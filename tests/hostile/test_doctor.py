"""What is wrong with plugins is found by ``vbackup doctor``, which goes on to the end."""

from __future__ import annotations

import json

import pytest

from tests.hostile.conftest import Place
from vbackup.jobs.doctor import examine
from vbackup.registry import Registry

CHECKS = {
    "raises": ("def check(self): raise RuntimeError('no')", "check raised RuntimeError: no"),
    "exits": ("def check(self): raise SystemExit(0)", "check raised SystemExit: 0"),
    "nothing": ("def check(self): return None", "check gave nothing (None), not several of Finding"),
    "text": ("def check(self): return 'fine'", "check gave a value of type str, not several of Finding"),
    "texts": ("def check(self): return ['fine']", "check gave a value of type str among what must be of type Finding"),
    "a level that is none": (
        "def check(self): return [Finding('x', 'fatal', 'y')]",
        "check gave a Finding whose level is 'fatal', none of ok, warning, error",
    ),
    "no level": (
        "def check(self): return [Finding('x', None, 'y')]",
        "check gave a Finding whose level is None, none of ok, warning, error",
    ),
    "no text": (
        "def check(self): return [Finding('x', Level.OK, ['y'])]",
        "check gave a Finding whose detail is a value of type list, not str",
    ),
}


@pytest.mark.parametrize(("body", "said"), CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize(("role", "base"), [("hypervisors", "Lab"), ("transports", "Disk")])
def test_a_check_that_fails_is_a_finding(place: Place, role: str, base: str, body: str, said: str) -> None:
    place.wild(role, base, body)
    outcome = place.vbackup("doctor")
    assert said in outcome.out
    assert "plugin 'wild', " in outcome.out
    assert "target main" in outcome.out  # it went on
    assert outcome.code == 1


def test_a_finding_is_one_line_whatever_it_says(place: Place) -> None:
    detail, hint = "no disk\nok       all: is well", "buy\x1b[2J\none"
    place.wild("hypervisors", "Lab", f"def check(self): return [Finding('disk\\ns', 'error', {detail!r}, {hint!r})]")
    outcome = place.vbackup("doctor")
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    at = lines.index(r"error    disk\ns: no disk\nok       all: is well")
    assert lines[at + 1] == r"         -> buy\x1b[2J\none"
    (found,) = [each for each in json.loads(place.vbackup("doctor", "--json").out) if each["level"] == "error"]
    assert found == {"what": "disk\ns", "level": "error", "detail": detail, "hint": hint}


def test_findings_of_a_class_of_its_own_are_taken(place: Place) -> None:
    found = """
    def check(self):
        class Own(Finding):
            def __init__(self, level):
                super().__init__("disks", level, "few")
        return [Own(Level.WARNING), Own("error")]
    """
    place.wild("hypervisors", "Lab", found)
    outcome = place.vbackup("doctor")
    assert outcome.code == 1
    assert "warning  disks: few\nerror    disks: few\n" in outcome.out


def test_an_error_is_one_line_whatever_it_says(place: Place) -> None:
    place.wild("hypervisors", "Lab", "def machines(self): raise Unavailable('gone\\nfor good\\r', hint='wait\\nhere')")
    outcome = place.vbackup("run", "--json")
    assert outcome.code == 1
    assert r"gone\nfor good\r" in outcome.err
    assert all(line.startswith(("vbackup: ", "hint: ")) for line in outcome.err.splitlines())


def test_a_note_is_one_line_whatever_it_says(place: Place) -> None:
    place.wild("hypervisors", "Lab", "def spoil(self, capture): capture.notes = ['thawed\\nlate\\x1b[31m']")
    assert "vbackup: warning: lab:web: thawed\\nlate\\x1b[31m\n" in place.vbackup("run").err


def test_a_plugin_that_is_not_configured_is_looked_at_all_the_same(place: Place) -> None:
    place.wild("hypervisors", "Lab", "def __init__(self, options, context): raise RuntimeError('no')")
    said = [finding.detail for finding in examine(None, Registry.load())]
    assert "plugin 'wild', hypervisor type wild: its constructor raised RuntimeError: no" in said
