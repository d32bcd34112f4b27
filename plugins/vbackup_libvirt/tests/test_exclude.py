"""Disks that the user leaves out: what becomes of their bitmaps, and of themselves at a restore."""

from __future__ import annotations

from pathlib import Path

import libvirt
import pytest

from vbackup.api import RestoreRequest, Unsupported
from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup_libvirt.hypervisor import Libvirt

from .conftest import backup, restore
from .test_io_threads import DISK
from .test_other_files import make
from .test_overwriting import OVER, disk_xml, fill, holds
from .test_running import assert_exact
from .test_stopped import image_bitmaps

VDB = frozenset({"vdb"})


def test_it_stays_as_it_is_when_its_machine_is_restored(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """And that is told: its disks are of different times then."""
    guest = make_guest(disks=(Disk("vda"), Disk("vdb")))
    fill(guest, 0x11)
    copy = backup(hypervisor, guest.name, exclude=VDB)
    fill(guest, 0x22)
    _, notes = restore(hypervisor, copy, OVER)
    assert "disk vdb is not in the restore point; it stays as it is now" in notes
    assert holds(guest.disks["vda"], 0x11)
    assert holds(guest.disks["vdb"], 0x22)


def test_it_stays_where_it_has_moved_to(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    guest = make_guest(disks=(Disk("vda"), Disk("vdb")))
    copy = backup(hypervisor, guest.name, exclude=VDB)
    moved = make(tmp_path / "moved.qcow2", "write -P 0x33 0 1M")
    guest.domain.updateDeviceFlags(disk_xml(moved, "vdb"), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    _, notes = restore(hypervisor, copy, OVER)
    assert "disk vdb is not in the restore point; it stays as it is now" in notes
    assert guest.disks["vdb"] == moved
    guest.start(paused=True)
    _, notes = restore(hypervisor, copy, RestoreRequest(name="copy"))
    assert any(note.startswith("disk vdb (") and note.endswith("the machine is without it") for note in notes)
    assert set(make_guest.adopt("copy").disks) == {"vda"}


@pytest.mark.parametrize("other", ["qcow2", "raw"])
@pytest.mark.parametrize("is_running", [True, False])
def test_the_bitmaps_of_earlier_backups_go(
    hypervisor: Libvirt, make_guest: GuestFactory, other: str, *, is_running: bool
) -> None:
    """Also when no disk that is left can keep one: there is no marker then."""
    guest = make_guest(disks=(Disk("vda", format=other), Disk("vdb")))
    if is_running:
        guest.start(paused=True)
    copy = backup(hypervisor, guest.name)
    for _ in range(2):
        copy = backup(hypervisor, guest.name, copy if copy.marker else None, exclude=VDB)
    if is_running:
        guest.destroy()
    assert image_bitmaps(guest.disks["vdb"]) == []
    assert len(guest.checkpoints) == (1 if other == "qcow2" else 0)
    guest.start(paused=True)
    again = backup(hypervisor, guest.name, copy if copy.marker else None)
    assert again.full_reasons["vdb"] is not None
    assert_exact(guest, again.disks)


def test_a_change_of_it_that_is_to_come_is_no_news(
    hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path
) -> None:
    guest = make_guest(disks=(Disk("vda"), Disk("vdb")))
    guest.start(paused=True)
    later = make(tmp_path / "later.qcow2", "write -P 1 0 1M")
    guest.domain.updateDeviceFlags(disk_xml(later, "vdb"), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    assert not any("vdb" in note for note in backup(hypervisor, guest.name, exclude=VDB).notes)


def test_a_machine_of_which_nothing_is_left(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    guest = make_guest(disks=(Disk("vdb"),))
    with pytest.raises(Unsupported, match=r"disk vdb is left out, as the job wants it \(`exclude_disks`\)"):
        backup(hypervisor, guest.name, exclude=VDB)


def test_one_in_an_io_thread_does_not_end_its_machine(
    hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path
) -> None:
    """Nobody reads it, so nobody lets go of it."""
    path = make(tmp_path / "extra.qcow2", "write -P 1 0 1M")
    extra = DISK.format(" iothread='1'", "vdb", "virtio").replace("/x", str(path)) + "</disk>"
    guest = make_guest(metadata="<iothreads>1</iothreads>", extra_devices=extra)
    guest.start(paused=True)
    copy = backup(hypervisor, guest.name, exclude=VDB)
    copy = backup(hypervisor, guest.name, copy, exclude=VDB)
    assert list(copy.disks) == ["vda"]
    assert guest.domain.isActive()
    assert_exact(guest, copy.disks)


@pytest.mark.parametrize("is_running", [True, False])
def test_one_whose_image_is_gone_holds_nothing_up(
    hypervisor: Libvirt, make_guest: GuestFactory, *, is_running: bool
) -> None:
    guest = make_guest(disks=(Disk("vda"), Disk("vdb")))
    copy = backup(hypervisor, guest.name)
    if is_running:
        guest.start(paused=True)
    guest.disks["vdb"].unlink()
    for _ in range(2):
        copy = backup(hypervisor, guest.name, copy, exclude=VDB)
        assert copy.full_reasons == {"vda": None}
