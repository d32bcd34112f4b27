"""Memory of the moment of the disks: captured while the guest is paused, and gone on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from vbackup.api import CaptureRequest, GuestError, Quiesce, RestoreRequest
from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest
from vbackup.testing.lab.libvirtd import until
from vbackup_libvirt import scratch
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.job import BackupJob

from .conftest import MIB, OWNER, Copy, Hypervisors, copy_all, restore
from .test_failures import SCRATCH, small  # noqa: F401 - a fixture
from .test_running import assert_exact

WITH_MEMORY = CaptureRequest(OWNER, quiesce=Quiesce.TRY, memory=True)
NOT_FROZEN = "the guest was not frozen: its memory is of the same moment as its disks"
COUNT = """
(i=0; while true; do i=$((i + 1)); echo $i >/run/count.new; mv /run/count.new /run/count; usleep 200000; done) \
  >/dev/null 2>&1 &
"""
"""/run is the guest's memory: what counts there starts afresh with a boot."""
SHMEM = "<shmem name='vbackup-test'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>"
"""A device that QEMU cannot save, as those that are passed through."""


def with_memory(hypervisor: Libvirt, name: str, request: CaptureRequest = WITH_MEMORY) -> Copy:
    """Capture and copy a machine, its memory as one more disk."""
    with hypervisor.capture(name, request) as capture:
        return copy_all(capture)


def is_running(guest: Guest) -> bool:
    """Whether its processors run."""
    return bool(guest.domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING)


@pytest.mark.guest
def test_a_restored_machine_goes_on(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """No reboot, it counts on where it was, and what it had not yet written to its disk gets there."""
    guest = make_guest(boot=True)
    guest.start()
    guest.wait_ready()
    guest.exec(COUNT)
    boot = guest.exec("cat /proc/sys/kernel/random/boot_id")
    digest = guest.exec("head -c 9000000 /dev/urandom >/data/keep; sha256sum /data/keep")
    copy = with_memory(hypervisor, guest.name, replace(WITH_MEMORY, quiesce=Quiesce.YES))
    assert is_running(guest)
    after = int(guest.exec("cat /run/count"))
    until(lambda: int(guest.exec("cat /run/count")) > after + 20, "the guest to count on")
    assert NOT_FROZEN in copy.notes
    assert not copy.quiesced
    assert list(SCRATCH.iterdir()) == []
    guest.remove()
    again = make_guest.adopt(guest.name)
    said, notes = restore(hypervisor, copy, RestoreRequest(start=True, overwrite=True))
    assert said == f"the machine {guest.name} is defined and goes on where it was"
    assert not [note for note in notes if "memory" in note]
    assert again.exec("cat /proc/sys/kernel/random/boot_id") == boot
    count = int(again.exec("cat /run/count"))
    assert 0 < count < after + 20
    until(lambda: int(again.exec("cat /run/count")) > count, "the restored guest to count on")
    assert again.exec("sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum /data/keep") == digest
    assert "EXT4-fs error" not in again.exec("dmesg")


@pytest.fixture
def running(make_guest: GuestFactory) -> Guest:
    """A machine without a system, whose processors run."""
    guest = make_guest()
    guest.start()
    return guest


def test_over_the_machine_itself(hypervisor: Libvirt, running: Guest, images: Path) -> None:
    """It is replaced, and runs; nothing is left beside its disks."""
    copy = with_memory(hypervisor, running.name)
    assert copy.full_reasons["memory"] is not None
    running.destroy()
    said, _ = restore(hypervisor, copy, RestoreRequest(start=True, overwrite=True))
    assert said.endswith("goes on where it was")
    assert is_running(running)
    assert list(images.iterdir()) == []
    assert_exact(running, {"vda": copy.disks["vda"]})


def test_with_firmware_and_a_tpm(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Their state is in the memory too, and of the same moment; a machine that was renamed starts afresh."""
    guest = make_guest(uefi=True, tpm=True, memory=64)
    guest.start()
    copy = with_memory(hypervisor, guest.name)
    assert set(copy.files) == {"nvram", "tpm"}
    guest.destroy()
    said, notes = restore(hypervisor, copy, RestoreRequest(start=True, overwrite=True))
    assert said.endswith("goes on where it was"), notes
    assert is_running(guest)
    guest.destroy()
    guest.domain.rename(f"{guest.name}-now")
    renamed = make_guest.adopt(f"{guest.name}-now")
    said, notes = restore(hypervisor, copy, RestoreRequest(start=True, overwrite=True))
    assert said.endswith("is defined and running")
    assert [note for note in notes if note.startswith("its memory is not restored: ") and guest.name in note]
    assert is_running(renamed)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (RestoreRequest(overwrite=True), "restore it with --start"),
        (RestoreRequest(name="copy", start=True), "a new machine starts afresh"),
    ],
)
def test_when_memory_is_left_out(
    hypervisor: Libvirt, running: Guest, make_guest: GuestFactory, request_: RestoreRequest, why: str
) -> None:
    """It is told before a byte is written, and the rest is restored."""
    copy = with_memory(hypervisor, running.name)
    running.destroy()
    said, notes = restore(hypervisor, replace(copy), request_)
    name = request_.name or running.name
    assert [note for note in notes if note.startswith("its memory is not restored: ") and why in note]
    assert make_guest.adopt(name).domain.isActive() == request_.start
    assert said.startswith(f"the machine {name} is defined")


def test_memory_without_one_of_its_disks_is_left_out(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Memory that went on with another disk than it knew would destroy its file system."""
    guest = make_guest(disks=(Disk("vda", size=MIB), Disk("vdb", size=MIB)))
    guest.start()
    copy = with_memory(hypervisor, guest.name)
    part = with_memory(hypervisor, guest.name, replace(WITH_MEMORY, exclude=frozenset({"vdb"})))
    assert "memory" not in part.disks
    assert [note for note in part.notes if note.startswith("its memory was not captured") and "vdb" in note]
    guest.destroy()
    del copy.disks["vdb"]
    _, notes = restore(hypervisor, copy, RestoreRequest(start=True, overwrite=True))
    assert [note for note in notes if note.startswith("its memory is not restored") and "vdb is not restored" in note]
    assert guest.domain.isActive()


def test_a_machine_that_cannot_go_on_is_left_off(hypervisor: Libvirt, running: Guest) -> None:
    """A fresh start would be the end of what was going on; the user decides."""
    copy = with_memory(hypervisor, running.name)
    del copy.disks["memory"][len(copy.disks["memory"]) // 8192 * 4096 :]
    running.destroy()
    said, notes = restore(hypervisor, copy, RestoreRequest(start=True, overwrite=True))
    assert said.endswith("is defined, but could not go on from its memory")
    assert [note for note in notes if note.startswith("it could not go on from its memory, and is off: ")]
    assert not running.domain.isActive()


def test_a_machine_that_its_user_paused_stays_paused(hypervisor: Libvirt, running: Guest) -> None:
    """Its memory is captured all the same."""
    running.pause()
    copy = with_memory(hypervisor, running.name)
    assert len(copy.disks["memory"]) > 0
    assert not is_running(running)


def test_a_machine_that_is_off_has_none(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """That is nothing to tell of."""
    copy = with_memory(hypervisor, make_guest().name)
    assert list(copy.disks) == ["vda"]
    assert not [note for note in copy.notes if "memory" in note]


def test_memory_that_cannot_be_saved_costs_the_memory_only(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """The disks are captured, and the machine runs on."""
    guest = make_guest(extra_devices=SHMEM)
    guest.start()
    copy = with_memory(hypervisor, guest.name)
    assert list(copy.disks) == ["vda"]
    assert [note for note in copy.notes if note.startswith("its memory was not captured: ") and "shmem" in note]
    assert is_running(guest)
    with pytest.raises(GuestError):  # then freezing is what was asked for
        with_memory(hypervisor, guest.name, replace(WITH_MEMORY, quiesce=Quiesce.YES))
    assert is_running(guest)


def test_too_little_room_costs_the_memory_only(
    make_hypervisor: Hypervisors,
    running: Guest,
    small: Path,  # noqa: F811
) -> None:
    """Scratch space that the disks need is not used up for it."""
    hypervisor = make_hypervisor(scratch=small, scratch_reserve=16 * MIB)
    copy = with_memory(hypervisor, running.name)
    assert list(copy.disks) == ["vda"]
    assert [note for note in copy.notes if f"bytes more must be free in {small}" in note]


def test_a_failure_after_the_pause_resumes(
    hypervisor: Libvirt, running: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backup job does not begin: the machine runs on, and nothing is left."""

    def fail(*_: object) -> None:
        assert not is_running(running)
        raise GuestError("no")

    monkeypatch.setattr(BackupJob, "begin", fail)
    with pytest.raises(GuestError), hypervisor.capture(running.name, WITH_MEMORY):
        pass
    assert is_running(running)
    assert list(SCRATCH.iterdir()) == []


def test_something_else_resumes_it_too_early(
    hypervisor: Libvirt, running: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the memory is not of the moment of the disks."""
    begin = BackupJob.begin

    def resume_first(*arguments: object) -> None:
        running.resume()
        begin(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(BackupJob, "begin", resume_first)
    copy = with_memory(hypervisor, running.name)
    assert list(copy.disks) == ["vda"]
    assert "its memory was not captured: something else resumed the machine too early" in copy.notes
    assert NOT_FROZEN not in copy.notes
    with pytest.raises(GuestError) as caught:
        with_memory(hypervisor, running.name, replace(WITH_MEMORY, quiesce=Quiesce.YES))
    assert caught.value.transient


def test_memory_in_place_of_a_freeze_is_no_warning(hypervisor: Libvirt, running: Guest) -> None:
    """Who did not insist on freezing has no less for it."""
    copy = with_memory(hypervisor, running.name)
    assert "memory" in copy.disks
    assert copy.notes == []


def test_the_moment_is_announced(hypervisor: Libvirt, running: Guest) -> None:
    """Before the machine stands still or has a job, once, and what it raises ends the capture."""
    states: list[tuple[bool, int]] = []

    def moment() -> None:
        states.append((is_running(running), running.domain.jobInfo()[0]))

    with_memory(hypervisor, running.name, replace(WITH_MEMORY, moment=moment))
    assert states == [(True, libvirt.VIR_DOMAIN_JOB_NONE)]
    running.destroy()
    before = running.checkpoints

    def refuse() -> None:
        raise GuestError("another machine of the group is not ready")

    with pytest.raises(GuestError), hypervisor.capture(running.name, replace(WITH_MEMORY, moment=refuse)):
        pass
    assert set(running.checkpoints) <= set(before)


def test_memory_of_another_machine_starts_nothing(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """libvirt would start the one that the memory names, on the disks that were restored."""
    copies, guests = [], [make_guest(), make_guest()]
    for guest in guests:
        guest.start()
        copies.append(with_memory(hypervisor, guest.name))
        guest.destroy()
    copies[1].disks["memory"] = copies[0].disks["memory"]
    said, notes = restore(hypervisor, copies[1], RestoreRequest(start=True, overwrite=True))
    assert said.endswith("could not go on from its memory")
    assert [note for note in notes if "the memory is that of another machine" in note and guests[0].name in note]
    assert not [guest for guest in guests if guest.domain.isActive()]


def test_memory_that_is_dropped_takes_no_room(
    hypervisor: Libvirt, running: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disks' scratch files need it, for as long as the copy takes."""
    begin = BackupJob.begin

    def resume_first(*arguments: object) -> None:
        running.resume()
        begin(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(BackupJob, "begin", resume_first)
    with hypervisor.capture(running.name, WITH_MEMORY) as capture:
        assert capture.memory is None
        assert list(SCRATCH.rglob("memory")) == []


def test_room_is_promised_once(make_hypervisor: Hypervisors, small: Path) -> None:  # noqa: F811
    """Machines of one moment ask for it before any of them has written a byte."""
    node = make_hypervisor(scratch=small)._node
    free, needed = scratch.room(node, 0)
    size = (free - needed) * 2 // 3
    first = small / "a"
    with scratch.claimed(node, str(first), size, 0) as missing:
        assert missing == 0
        with scratch.claimed(node, str(small / "b"), size, 0) as missing:
            assert missing == 2 * size - (free - needed)
        first.write_bytes(b"x" * (1 << 20))  # what is written is not free, and counts no more
        with scratch.claimed(node, str(small / "b"), free - needed - size - (64 << 10), 0) as missing:
            assert missing == 0
    first.unlink()
    with scratch.claimed(node, str(small / "b"), size, 0) as missing:
        assert missing == 0
