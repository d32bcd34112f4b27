"""A machine that is paused for its memory's sake goes on, whatever becomes of us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest
from vbackup.testing.lab.libvirtd import until
from vbackup_libvirt import pause
from vbackup_libvirt.hypervisor import Libvirt

from .conftest import MIB, OWNER, Hypervisors, backup, copy_all
from .test_dying import DYING
from .test_failures import SCRATCH
from .test_memory import WITH_MEMORY, is_running, with_memory

STEP = 4

CAPTURE = (
    DYING.replace("os.kill(os.getpid()", "(sys.argv[6] and kill_guards(os.getpid())) or os.kill(os.getpid()")
    + """
from vbackup_libvirt.tests.conftest import kill_guards
with hypervisor.capture(name, CaptureRequest(sys.argv[5], None, Quiesce.NO, memory=True)) as capture:
    assert capture.memory is not None
"""
)


@pytest.mark.parametrize("with_guard", [False, True])
def test_a_capture_that_dies_anywhere(
    hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path, *, with_guard: bool
) -> None:
    """The guard has the machine go on; if that dies as well, a sweep."""
    guest = make_guest()
    guest.start()
    step, finished, paused = 0, False, 0
    while not finished:
        argv = [sys.executable, "-c", CAPTURE, str(step), tmp_path / "state", guest.name, tmp_path / "images", OWNER]
        done = subprocess.run([*argv, "x" * with_guard], capture_output=True, text=True, check=False)
        assert done.returncode in (0, -9), done.stderr
        finished = done.returncode == 0
        paused += not is_running(guest)
        if with_guard:
            hypervisor.sweep(OWNER)
            assert is_running(guest), step
        else:
            until(lambda: is_running(guest), "the guard to resume the machine")
        step += STEP
    assert step > 15
    assert paused > 0 or not with_guard  # the guard may have been quicker than we looked
    hypervisor.sweep(OWNER)
    backup(hypervisor, guest.name)
    assert is_running(guest)


@contextmanager
def stalled(guest: Guest, released: threading.Event, seconds: float = 60) -> Iterator[threading.Event]:
    """Stop QEMU as soon as the machine is paused, until ``released``: saving its memory takes that long.

    Yields what is set when it is stopped; ``seconds`` later it is released anyway.
    """
    stopped = threading.Event()

    def stop() -> None:
        until(lambda: not is_running(guest), "the machine to be paused")
        os.kill(guest.pid, signal.SIGSTOP)
        stopped.set()
        try:
            released.wait(seconds)
        finally:
            os.kill(guest.pid, signal.SIGCONT)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        yield stopped
    finally:
        released.set()
        thread.join()


def test_a_pause_that_takes_too_long(make_hypervisor: Hypervisors, make_guest: GuestFactory) -> None:
    """The machine goes on, and its disks are captured."""
    hypervisor = make_hypervisor(pause_timeout=1)
    guest = make_guest(memory=1024)  # MiB: it is stopped long before so much is saved
    guest.start()
    with stalled(guest, threading.Event(), 4):
        copy = with_memory(hypervisor, guest.name)
    assert list(copy.disks) == ["vda"]
    assert [note for note in copy.notes if "longer than the 1 s for which the machine may be paused" in note]
    assert is_running(guest)


HOLD = f"""
import sys
from pathlib import Path
from vbackup.api import CaptureRequest, HypervisorContext, Quiesce
from vbackup_libvirt import pause
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.options import LibvirtOptions
hypervisor = Libvirt(LibvirtOptions(scratch_reserve={MIB}), HypervisorContext("lab", Path(sys.argv[2])))
with hypervisor.capture(sys.argv[1], CaptureRequest({OWNER!r}, quiesce=Quiesce.NO, memory=True)):
    print("captured", flush=True)
    sys.stdin.read()
"""


def test_killed_while_libvirt_saves(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    """libvirt goes on saving without us: that is ended, and the machine resumed."""
    guest = make_guest()
    guest.start()
    released = threading.Event()
    argv = [sys.executable, "-c", HOLD, guest.name, tmp_path / "state"]
    with stalled(guest, released), subprocess.Popen(argv, stdin=subprocess.PIPE) as holder:
        until(lambda: not is_running(guest), "the machine to be paused")
        holder.kill()
        holder.wait()
    until(lambda: is_running(guest), "the guard to resume the machine")
    hypervisor.sweep(OWNER)
    assert list(SCRATCH.iterdir()) == []
    assert is_running(guest)
    assert guest.domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE


def test_the_guard_of_the_dead_leaves_the_next_run_alone(
    hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path
) -> None:
    """It looks for a pause that comes late, but not for that of others."""
    guest = make_guest()
    guest.start()
    released = threading.Event()
    argv = [sys.executable, "-c", HOLD, guest.name, tmp_path / "state"]
    with stalled(guest, released), subprocess.Popen(argv, stdin=subprocess.PIPE) as holder:
        until(lambda: not is_running(guest), "the machine to be paused")
        holder.kill()
        holder.wait()
    for _ in range(5):
        copy = with_memory(hypervisor, guest.name)
        assert "memory" in copy.disks, copy.notes
        assert is_running(guest)


def test_a_machine_paused_by_its_user_is_not_resumed_by_a_sweep(
    hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path
) -> None:
    """Only what the journal of the dead says was ours is undone."""
    guest = make_guest()
    guest.start(paused=True)
    argv = [sys.executable, "-c", HOLD, guest.name, tmp_path / "state"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"captured\n"
        holder.kill()
        holder.wait()
    assert hypervisor.sweep(OWNER)
    assert not is_running(guest)


def test_libvirtd_is_away_when_the_machine_is_to_be_resumed(
    hypervisor: Libvirt, make_guest: GuestFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard goes on trying, and the point says so."""
    guest = make_guest()
    guest.start()
    monkeypatch.setattr(pause, "resume", lambda *_: False)
    with hypervisor.capture(guest.name, replace(WITH_MEMORY)) as capture:
        copy = copy_all(capture)
        assert [note for note in capture.notes if note.startswith("the machine may be paused")]
    assert "memory" in copy.disks
    until(lambda: is_running(guest), "the guard to resume the machine")
    monkeypatch.undo()
    backup(hypervisor, guest.name)
    assert hypervisor.sweep(OWNER) == []
