"""Journals: durable, held by one process, and found when that has died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vbackup.api import Busy
from vbackup_undo.journal import Entry, Journals

CODE = """
import os, signal, sys
from pathlib import Path
from vbackup_undo.journal import Journals
from plugins.vbackup_undo.tests.test_journal import Work
with Journals(Path(sys.argv[1]), "work", Work).open("one") as journal:
    journal.write(Work(what="half done"))
    print("written", flush=True)
    signal.pause()
"""


class Work(Entry):
    what: str
    open_end: bool = False

    @property
    def lasts(self) -> bool:
        return self.open_end


@pytest.fixture
def journals(tmp_path: Path) -> Journals[Work]:
    return Journals(tmp_path / "state", "work", Work)


def test_what_is_written_is_there_for_the_next_one(journals: Journals[Work]) -> None:
    with journals.open("one") as journal:
        assert journal.entry is None
        journal.write(Work(what="a"))
        journal.update(what="b")
    with journals.open("one") as journal:
        assert journal.entry == Work(what="b")
        journal.clear()
    assert list(journals.dead()) == []


def test_it_is_held_by_one(journals: Journals[Work]) -> None:
    with journals.open("one") as journal:
        journal.write(Work(what="a"))
        with pytest.raises(Busy, match="work one"), journals.open("one"):
            pass
        assert list(journals.dead()) == []
        with journals.open("two"):
            pass
    assert [one.entry for one in journals.dead()] == [Work(what="a")]


def test_what_lasts_is_not_cleared(journals: Journals[Work]) -> None:
    with journals.open("one") as journal:
        journal.write(Work(what="a", open_end=True))
        journal.clear()
        assert journal.entry is not None
        journal.update(open_end=False)
        journal.clear()
        assert journal.entry is None


def test_half_an_entry_counts_as_none(journals: Journals[Work], tmp_path: Path) -> None:
    with journals.open("one"):
        (tmp_path / "state" / "work-one.json").write_text('{"what": "')
    with journals.open("one") as journal:
        assert journal.entry is None


def test_the_journal_of_a_killed_process(journals: Journals[Work], tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    child = subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path / "state")], stdout=subprocess.PIPE, cwd=root, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        assert list(journals.dead()) == []
        os.kill(child.pid, signal.SIGKILL)
    assert [one.entry for one in journals.dead()] == [Work(what="half done")]
