"""Dying at every operation, for real: in processes of their own, by SIGKILL."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.kit.test_crash_kit import replace
from vbackup.api import NotFound
from vbackup.testing.crash import FILE_OPERATIONS, Death, processes, ticking
from vbackup.testing.leftovers import nothing_left_open
from vbackup.testing.transports import FaultyTransport
from vbackup_local.transport import Local, LocalOptions


def test_a_process_is_killed_at_each_operation(tmp_path):
    """What it wrote before is there, of what comes later nothing is."""
    path = tmp_path / "log"

    def action(tick):
        path.write_text("")
        for name in ("one", "two"):
            tick("before", name)
            with path.open("a") as file:
                file.write(f"{name} ")

    parent = os.getpid()
    seen = [(death, path.read_text()) for death in processes(action)]
    assert seen == [(Death(1, "before one"), ""), (Death(2, "before two"), "one ")]
    assert path.read_text() == "one two "
    assert os.getpid() == parent


def test_files_and_their_directories_are_operations(tmp_path):
    """A document that is replaced is the old one or the new one, at whatever call its writer dies."""
    document = tmp_path / "document"

    def replace_document(tick):
        document.write_text("old")
        ticking(os, FILE_OPERATIONS, tick)
        with (tmp_path / "new").open("w") as file:
            file.write("new")
            file.flush()
            os.fsync(file.fileno())
        (tmp_path / "new").rename(document)

    fsync, rename = os.fsync, os.rename
    seen = [(death.what.split()[:2], document.read_text()) for death in processes(replace_document)]
    assert seen == [
        (["before", "fsync"], "old"),
        (["after", "fsync"], "old"),
        (["before", "rename"], "old"),
        (["after", "rename"], "new"),
    ]
    assert (os.fsync, os.rename) == (fsync, rename)


def test_methods_that_are_awaited(tmp_path):
    """After is when they have ended."""
    path = tmp_path / "log"

    class Monitor:
        async def ask(self, word):
            await asyncio.sleep(0)
            path.write_text(word)

        def __str__(self):
            return "monitor"

    def action(tick):
        path.write_text("nothing")
        ticking(Monitor, ["ask"], tick)
        asyncio.run(Monitor().ask("status"))

    seen = [(death.what, path.read_text()) for death in processes(action)]
    assert seen == [("before ask monitor status", "nothing"), ("after ask monitor status", "status")]


def test_a_transport_of_files(tmp_path):
    """With `FaultyTransport` a tick is a fault, before and after each operation."""
    root = tmp_path / "store"
    root.mkdir()

    def action(tick):
        replace(FaultyTransport(Local(LocalOptions(path=root)), tick, tick))

    seen = []
    for death in processes(action, every=2):
        seen.append((death.what, sorted(path.name for path in root.iterdir())))
        (root / "a").write_bytes(b"old")
        (root / "b").unlink(missing_ok=True)
    assert seen[0][1] == []
    assert [what for what, _ in seen] == ["1 get a", "2 put b", "3 delete a"]
    assert seen[1:] == [("2 put b", ["a"]), ("3 delete a", ["a", "b"])]


def test_an_action_that_fails_in_its_process():
    """Its traceback comes with it; the last of its words are not lost."""

    def fails(tick):
        tick("first")
        raise NotFound("object x")

    deaths = processes(fails)
    assert next(deaths) == Death(1, "first")
    with pytest.raises(AssertionError, match=r"(?s)failed \(1\) before it died at operation 2.*NotFound: object x"):
        next(deaths)


def test_an_action_that_ends_in_another_way():
    def killed(tick):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    with pytest.raises(AssertionError, match="-15"):
        next(processes(killed))


def test_an_action_that_does_not_end():
    with pytest.raises(AssertionError, match="did not end"):
        next(processes(lambda tick: signal.pause(), within=0.2))


def test_nothing_is_left_of_the_processes(tmp_path):
    """No zombie, and no file that stays open."""
    pids = tmp_path / "pids"

    def action(tick):
        with pids.open("a") as file:
            file.write(f"{os.getpid()}\n")
        for _ in range(5):
            tick("x")

    with nothing_left_open():
        assert len(list(processes(action))) == 5
    begun = [int(line) for line in pids.read_text().split()]
    assert len(begun) == 6
    for pid in begun:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_action_that_has_no_operations():
    with pytest.raises(AssertionError, match="no operations"):
        list(processes(lambda tick: None))
