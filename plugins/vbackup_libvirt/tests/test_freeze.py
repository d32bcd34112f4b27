"""A real guest is frozen for the moment of a capture, and always thawed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.fixtures import GuestFactory
from tests.lab.guest import Guest
from tests.lab.libvirtd import until
from vbackup.api import CaptureRequest, GuestError, Quiesce, RestoreRequest
from vbackup_libvirt.hypervisor import Libvirt

from .conftest import OWNER, Hypervisors, backup, restore

FREEZE = f"""
import sys
from pathlib import Path
from vbackup.api import HypervisorContext, Quiesce
from vbackup_libvirt.freeze import frozen
from vbackup_libvirt.journal import CaptureEntry
from vbackup_libvirt.node import Node
from vbackup_libvirt.options import LibvirtOptions
node = Node(LibvirtOptions(freeze_timeout=int(sys.argv[3])), HypervisorContext("lab", Path(sys.argv[2])))
machine = node.machine(sys.argv[1])
with node.captures.open(machine.uuid) as journal:
    nowhere = "/nowhere/scratch"
    journal.write(
        CaptureEntry(owner={OWNER!r}, machine=machine.name, uuid=machine.uuid, scratch=nowhere, frozen=True)
    )
    with frozen(machine, Quiesce.YES):
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

    def children(self) -> list[int]:
        """Return its child processes."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


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
    (child,) = freezer.children()
    subprocess.run(["kill", "-KILL", str(child), str(freezer.process.pid)], check=True)
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
