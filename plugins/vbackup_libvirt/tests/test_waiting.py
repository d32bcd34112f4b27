"""The guard while nothing is to be done: what it hears, and when it begins to act."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from vbackup_libvirt import waiting
from vbackup_libvirt.waiting import END, Parent, Word, follow, is_over

FREEZE = ["begun", "frozen", "thawed", "ended", END]
PAUSE = ["begun", "paused", "resumed", "ended", END]


def heard(*texts: str) -> list[Word]:
    """Return words, all said at once."""
    return [Word(text, 0.0) for text in texts]


@pytest.mark.parametrize("texts", [FREEZE, PAUSE, [END], ["begun", "ended", END], ["frozen", "thawed", END]])
def test_nothing_is_left(texts: list[str], tmp_path: Path) -> None:
    """All is undone, or was never begun; unless a resume is owed."""
    owed = tmp_path / "owed"
    assert is_over(heard(*texts), str(owed))
    owed.touch()
    assert not is_over(heard(*texts), str(owed))


@pytest.mark.parametrize("end", range(1, 4))
def test_something_is_left(end: int, tmp_path: Path) -> None:
    """The parent ends somewhere between its first and its last word."""
    assert not is_over(heard(*FREEZE[:end], END), str(tmp_path / "owed"))


@pytest.mark.parametrize("texts", [["begun", "frozen", "thaw"], ["begun", "ended"], []])
def test_the_parent_lives(texts: list[str], tmp_path: Path) -> None:
    """It may yet say something."""
    assert not is_over(heard(*texts), str(tmp_path / "owed"))


@pytest.mark.parametrize("last", ["thaw", "resume", END])
def test_some_words_are_heeded_at_once(last: str) -> None:
    """The others are only kept."""
    parent = Parent()
    for text in ("begun", "frozen", last):
        parent.say(text)
    began = time.monotonic()
    assert [word.text for word in follow(parent)] == ["begun", "frozen", last]
    assert time.monotonic() - began < waiting.HELD


@pytest.mark.parametrize("text", ["frozen", "paused"])
def test_a_guest_that_stands_still_is_not_waited_for(text: str) -> None:
    """What it takes to act is there before `freeze_timeout` and `pause_timeout` are over."""
    parent = Parent()
    parent.say(text)
    began = time.monotonic()
    assert [word.text for word in follow(parent)] == [text]
    assert waiting.HELD <= time.monotonic() - began < waiting.SHORT


def test_a_long_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for a word for ever, and a guest that went on does not hurry it."""
    monkeypatch.setattr(waiting, "SHORT", 1.0)
    parent = Parent()
    for text in FREEZE[:3]:
        parent.say(text)
    began = time.monotonic()
    assert [word.text for word in follow(parent)] == FREEZE[:3]
    assert time.monotonic() - began >= waiting.SHORT - waiting.HELD / 2


def test_it_imports_little() -> None:
    """Neither vbackup nor pydantic, by which it would take several times as long."""
    script = "import runpy, sys; runpy.run_path(sys.argv[1]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", script, waiting.__file__], check=True, capture_output=True)
    assert not [name for name in done.stdout.decode().split() if name.startswith(("vbackup", "pydantic"))]
