"""A real guest is frozen for the moment of a capture, and always thawed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vbackup.api import CaptureRequest, GuestError, Quiesce, RestoreRequest, Unavailable
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest
from vbackup.testing.lab.libvirtd import Libvirtd, until
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.job import BackupJob

from .conftest import OWNER, Hypervisors, backup, kill_guards, restore

FREEZE = f"""
import sys
from pathlib import Path, PurePosixPath
from vbackup.api import HypervisorContext, Quiesce
from vbackup_libvirt.freeze import frozen
from vbackup_libvirt.guard import guarded
from vbackup_libvirt.job import BackupJob
from vbackup_libvirt.journal import CaptureEntry
from vbackup_libvirt.node import Node
from vbackup_libvirt.options import LibvirtOptions
node = Node(LibvirtOptions(freeze_timeout=int(sys.argv[3])), HypervisorContext("lab", Path(sys.argv[2])))
machine = node.machine(sys.argv[1])
job = BackupJob(machine, PurePosixPath("/nowhere/scratch"))
with node.captures.open(machine.uuid) as journal, guarded(job) as guard:
    journal.write(CaptureEntry(owner={OWNER!r}, machine=machine.name, uuid=machine.uuid, scratch=str(job.scratch)))
    guard.wait_ready()
    with frozen(machine, Quiesce.YES, guard, journal):
        print("frozen", flush=True)
        sys.stdin.read()
"""


class Freezer:
    """Another process of vbackup that has frozen a guest."""

    def __init__(self, guest: Guest, state: Path, seconds: int = 600) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", FREEZE, guest.name, str(state), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "frozen\n"


@pytest.fixture
def guest(make_guest: GuestFactory) -> Guest:
    """A Linux that runs, with its agent."""
    guest = make_guest(boot=True)
    guest.start()
    guest.wait_ready()
    return guest


def is_thawed(guest: Guest) -> bool:
    """Whether no file system of the guest is frozen."""
    return bool(guest.agent("guest-fsfreeze-status") == "thawed")


def test_a_guest_is_frozen_for_the_moment(
    hypervisor: Libvirt, guest: Guest, make_guest: GuestFactory, tmp_path: Path
) -> None:
    """The file system of the copy is clean; the guest runs on while it is read; the copy boots and finds its data."""
    guest.exec("mkdir -p /data/keep; echo precious >/data/keep/file")  # not synced
    with hypervisor.capture(guest.name, CaptureRequest(OWNER, quiesce=Quiesce.YES)) as capture:
        assert capture.quiesced
        assert is_thawed(guest)
    copy = backup(hypervisor, guest.name, quiesce=Quiesce.YES)
    assert copy.notes == []
    restore(hypervisor, copy, RestoreRequest(disks={"vda": tmp_path / "vda.raw"}))
    checked = subprocess.run(
        ["/sbin/debugfs", "-R", "cat /keep/file", tmp_path / "vda.raw"], capture_output=True, text=True, check=True
    )
    assert checked.stdout == "precious\n"
    restore(hypervisor, copy, RestoreRequest(name="booted", start=True))
    booted = make_guest.adopt("booted")
    booted.wait_ready()
    assert booted.exec("cat /data/keep/file") == "precious\n"


def test_killed_while_frozen(guest: Guest, tmp_path: Path) -> None:
    """SIGKILL: the child thaws the guest."""
    freezer = Freezer(guest, tmp_path)
    assert not is_thawed(guest)
    freezer.process.kill()
    until(lambda: is_thawed(guest), "the guest to be thawed")
    freezer.process.communicate()


def test_frozen_for_too_long(guest: Guest, tmp_path: Path) -> None:
    """The child thaws the guest when the time is up, and the point does not count as frozen."""
    freezer = Freezer(guest, tmp_path, seconds=2)
    until(lambda: is_thawed(guest), "the guest to be thawed")
    _, stderr = freezer.process.communicate("")
    assert "was thawed after 2 s, before the backup had begun" in stderr


def test_all_killed_while_frozen(hypervisor: Libvirt, guest: Guest, tmp_path: Path) -> None:
    """The sweep thaws the guest."""
    freezer = Freezer(guest, tmp_path / "state")
    kill_guards(freezer.process.pid)
    freezer.process.kill()
    freezer.process.communicate()
    assert not is_thawed(guest)
    assert hypervisor.sweep(OWNER) == [f"undid what a dead capture of {guest.name} had left"]
    assert is_thawed(guest)


def test_an_agent_that_hangs(make_hypervisor: Hypervisors, guest: Guest) -> None:
    """It is given up after its time: an error where freezing was asked for, else a note."""
    hypervisor = make_hypervisor(agent_timeout=2)
    guest.exec("pid=$(pidof qemu-ga); (sleep 1; kill -STOP $pid) >/dev/null 2>&1 &")
    until(lambda: not guest_answers_quickly(guest), "the agent to stop")
    with pytest.raises(GuestError), hypervisor.capture(guest.name, CaptureRequest(OWNER, quiesce=Quiesce.YES)):
        pass
    with hypervisor.capture(guest.name, CaptureRequest(OWNER, quiesce=Quiesce.TRY)) as capture:
        assert not capture.quiesced
        assert any(note.startswith("the guest was not frozen: ") for note in capture.notes)


@pytest.mark.parametrize("who", ["guard", "sweep"])
def test_an_agent_that_is_late(make_hypervisor: Hypervisors, guest: Guest, who: str) -> None:
    """It freezes when nobody waits for that any more; the guard, or else a sweep, thaws once it answers."""
    hypervisor = make_hypervisor(agent_timeout=2)
    script = "sleep 2; kill -STOP $1; echo stopped >/dev/ttyS0; sleep 18; kill -CONT $1"
    guest.exec(f"setsid sh -c '{script}' sh $(pidof qemu-ga) </dev/null >/dev/null 2>&1 &")
    (serial,) = (Path(source.attrib["path"]) for source in guest.xml().iterfind("devices/serial/source"))
    # It is not asked whether it answers: libvirt would notice, and not send it the freeze any more.
    until(lambda: "stopped" in serial.read_text(errors="replace"), "the agent to be stopped")
    with hypervisor.capture(guest.name, CaptureRequest(OWNER, quiesce=Quiesce.TRY)) as capture:
        if who == "sweep":
            kill_guards(os.getpid())
        assert not capture.quiesced
        assert any(note.startswith("the guest may be frozen: ") for note in capture.notes)
    (said,) = hypervisor.sweep(OWNER)
    assert said.startswith(f"could not thaw {guest.name}")
    until(lambda: guest_answers_quickly(guest), "the agent to be back")
    if who == "sweep":
        assert not is_thawed(guest)
        assert hypervisor.sweep(OWNER) == [f"undid what a dead capture of {guest.name} had left"]
        assert is_thawed(guest)
    until(lambda: is_thawed(guest), "the guest to be thawed")


@pytest.mark.parametrize("who", ["guard", "sweep"])
def test_libvirtd_is_away_when_the_guest_is_to_be_thawed(
    hypervisor: Libvirt, guest: Guest, libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """The guard, or else a sweep, thaws it when libvirtd is back."""
    monkeypatch.setattr("vbackup_libvirt.connection.PATIENCE", 0.5)
    begin = BackupJob.begin

    def begin_without_libvirtd(job: BackupJob, *arguments: Any) -> None:
        libvirtd.stop(signal.SIGKILL)
        if who == "sweep":
            kill_guards(os.getpid())
        begin(job, *arguments)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(BackupJob, "begin", begin_without_libvirtd)
            request = CaptureRequest(OWNER, quiesce=Quiesce.YES)
            with pytest.raises(Unavailable), hypervisor.capture(guest.name, request):
                pass
    finally:
        libvirtd.start()
    guest.wait_ready()
    if who == "sweep":
        assert not is_thawed(guest)
        assert hypervisor.sweep(OWNER) == [f"undid what a dead capture of {guest.name} had left"]
        assert is_thawed(guest)
    until(lambda: is_thawed(guest), "the guest to be thawed")


def test_a_guest_that_somebody_else_thaws(hypervisor: Libvirt, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its point does not count as frozen."""
    begin = BackupJob.begin

    def thaw_and_begin(job: BackupJob, *arguments: Any) -> None:
        guest.domain.fsThaw()
        begin(job, *arguments)

    monkeypatch.setattr(BackupJob, "begin", thaw_and_begin)
    copy = backup(hypervisor, guest.name, quiesce=Quiesce.TRY)
    assert not copy.quiesced
    (note,) = copy.notes
    assert "was thawed by something else" in note


def guest_answers_quickly(guest: Guest) -> bool:
    """Whether the agent answers within two seconds."""
    import libvirt
    import libvirt_qemu

    try:
        libvirt_qemu.qemuAgentCommand(guest.domain, '{"execute": "guest-ping"}', 2, 0)
    except libvirt.libvirtError:
        return False
    return True


@pytest.mark.parametrize("paused", [True, False])
def test_a_guest_without_an_agent(hypervisor: Libvirt, make_guest: GuestFactory, *, paused: bool) -> None:
    """Nobody is at the channel, or the machine is paused: an error where freezing was asked for, else a note."""
    guest = make_guest()
    guest.start(paused=paused)
    request = CaptureRequest(OWNER, quiesce=Quiesce.YES)
    with pytest.raises(GuestError, match="is paused" if paused else "agent"), hypervisor.capture(guest.name, request):
        pass
    assert guest.checkpoints == []
    copy = backup(hypervisor, guest.name, quiesce=Quiesce.TRY)
    assert not copy.quiesced
    (note,) = copy.notes
    assert note.startswith("the guest was not frozen: ")


def test_a_guest_that_shuts_down_is_consistent(hypervisor: Libvirt, guest: Guest) -> None:
    """Off by its own doing, its file systems are clean."""
    guest.shutdown()
    assert backup(hypervisor, guest.name, quiesce=Quiesce.YES).quiesced
