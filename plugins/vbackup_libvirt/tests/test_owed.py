"""The mark of a pause: nobody's pause is undone but ours, and ours by whoever is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import libvirt
import pytest

from vbackup.api import Unavailable
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest
from vbackup.testing.lab.libvirtd import Libvirtd, until
from vbackup_libvirt import pause
from vbackup_libvirt.guard import guarded
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.job import BackupJob, new_directory
from vbackup_libvirt.journal import CaptureEntry
from vbackup_libvirt.node import Machine
from vbackup_libvirt.owed import Owed
from vbackup_libvirt.pause import Pause

from .conftest import OWNER, backup, guards, kill_guards
from .test_memory import is_running
from .test_pause import HOLD, stalled


@pytest.fixture
def running(make_guest: GuestFactory) -> Guest:
    """A machine without a system, whose processors run."""
    guest = make_guest()
    guest.start()
    return guest


def marks(state: Path) -> list[Path]:
    """Return the marks that there are."""
    return list(state.glob("owed-*"))


def test_libvirtd_restarts_while_it_saves(
    libvirtd: Libvirtd, hypervisor: Libvirt, running: Guest, tmp_path: Path
) -> None:
    """We live, cannot resume it and tidy up; the guard still knows that it has to."""
    state = tmp_path / "state"
    released = threading.Event()
    argv = [sys.executable, "-c", HOLD, running.name, str(state)]
    with (
        stalled(running, released) as stopped,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as holder,
    ):
        assert stopped.wait(60)
        libvirtd.stop(signal.SIGKILL)  # by SIGTERM it would wait for QEMU, which does not answer
        released.set()
        libvirtd.start()
        holder.communicate(b"", 90)
    until(lambda: is_running(running), "the guard to resume the machine")
    until(lambda: not marks(state), "the guard to settle it")
    hypervisor.sweep(OWNER)
    assert is_running(running)


def test_a_sweep_leaves_what_the_user_pauses_later(hypervisor: Libvirt, running: Guest, tmp_path: Path) -> None:
    """The guard has resumed it, and its journal is still there."""
    state = tmp_path / "state"
    argv = [sys.executable, "-c", HOLD, running.name, str(state)]
    with stalled(running, threading.Event(), 2), subprocess.Popen(argv, stdin=subprocess.PIPE) as holder:
        until(lambda: not is_running(running), "the machine to be paused")
        holder.kill()
        holder.wait()
    until(lambda: not marks(state), "the guard to settle it")
    assert is_running(running)
    running.domain.suspend()
    assert hypervisor.sweep(OWNER)
    assert not is_running(running)
    assert hypervisor.sweep(OWNER) == []


def test_a_guard_that_is_told_to_end_undoes_first(running: Guest, tmp_path: Path) -> None:
    """A service manager ends a whole control group, and kills it when its patience is over."""
    argv = [sys.executable, "-c", HOLD, running.name, str(tmp_path / "state")]
    with stalled(running, threading.Event(), 2), subprocess.Popen(argv, stdin=subprocess.PIPE) as holder:
        until(lambda: not is_running(running), "the machine to be paused")
        (guard,) = guards(holder.pid)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(guard, number)
        holder.kill()
        holder.wait()
    until(lambda: is_running(running), "the guard to resume the machine")


def test_a_mark_ends_with_the_run(hypervisor: Libvirt, running: Guest) -> None:
    """Who has switched the machine off and on has ended our pause; the one that follows is the user's."""
    node = hypervisor._node
    machine = Machine(node, running.name, running.uuid)
    owed = node.owed("x")
    owed.path.parent.mkdir(exist_ok=True)
    owed.make(pause.run_of(machine))
    running.destroy()
    running.start(paused=True)
    assert pause.settle(machine, owed)
    with owed.held() as run:
        assert run is None
    assert not is_running(running)
    owed.make(pause.run_of(machine))
    assert pause.settle(machine, owed)
    assert is_running(running)


def test_a_saving_that_ends_as_it_is_to_be_ended(
    hypervisor: Libvirt, running: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was a job when we looked, and none to end any more: the machine is resumed all the same."""
    node = hypervisor._node
    machine = Machine(node, running.name, running.uuid)
    owed = node.owed("x")
    owed.path.parent.mkdir(exist_ok=True)
    owed.make(pause.run_of(machine))
    ask = Machine.ask
    asked: list[str] = []

    def look_early(self: Machine, what: str, question: object) -> object:
        asked.append(what)
        if what == "looking for jobs":
            return {"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT}
        return ask(self, what, question)  # type: ignore[arg-type]

    monkeypatch.setattr(Machine, "ask", look_early)
    running.domain.suspend()
    assert pause.settle(machine, owed)
    assert "ending the saving of its memory" in asked
    assert is_running(running)


def test_a_backup_of_a_machine_that_cannot_be_resumed_says_so(
    hypervisor: Libvirt, running: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disks are captured, and whoever can resumes it later."""
    argv = [sys.executable, "-c", HOLD, running.name, str(tmp_path / "state")]
    with stalled(running, threading.Event(), 2), subprocess.Popen(argv, stdin=subprocess.PIPE) as holder:
        until(lambda: not is_running(running), "the machine to be paused")
        kill_guards(holder.pid)
        holder.kill()
        holder.wait()
    until(lambda: running.domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE, "libvirt to have saved its memory")
    with monkeypatch.context() as patched:
        patched.setattr(pause, "resume", lambda *_: False)
        copy = backup(hypervisor, running.name)
    assert [note for note in copy.notes if note.startswith("the machine may be paused since an earlier backup")]
    assert not is_running(running)
    assert hypervisor.sweep(OWNER)
    assert is_running(running)


def test_a_pause_that_comes_late(hypervisor: Libvirt, running: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request was lost with the link, and is carried out when we have looked: the guard goes on looking."""
    node = hypervisor._node
    machine = Machine(node, running.name, running.uuid)
    job = BackupJob(machine, new_directory(node.scratch))
    ask = Machine.ask

    def lose(self: Machine, what: str, question: object) -> object:
        if what == "pausing it":
            raise Unavailable("the link is lost")
        return ask(self, what, question)  # type: ignore[arg-type]

    monkeypatch.setattr(Machine, "ask", lose)
    with node.captures.open(running.uuid) as journal, guarded(job) as guard:
        journal.write(CaptureEntry(owner=OWNER, machine=running.name, uuid=running.uuid, scratch=str(job.scratch)))
        guard.wait_ready()
        hold = Pause(machine, guard, journal)
        with pytest.raises(Unavailable):
            hold.begin()
        hold.release()
        running.domain.suspend()
        assert journal.entry is not None
        assert journal.entry.paused == (job.scratch.name,)
        until(lambda: running.domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING, "the guard to resume the machine")


def test_whoever_comes_second_sees_what_the_first_has_done(tmp_path: Path) -> None:
    """A guard that reads the mark just before a later run settles it would resume that run's own pause."""
    mark = Owed(tmp_path / "owed")
    mark.make("boot 7")
    seen: list[str | None] = []

    def come_second() -> None:
        with mark.held() as run:
            seen.append(run)

    second = threading.Thread(target=come_second)
    with mark.held() as run:
        assert run == "boot 7"
        second.start()
        assert seen == []
        mark.settle()
    second.join()
    assert seen == [None]
