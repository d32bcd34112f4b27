"""Running machines: bit exact, full and by difference; and tracking that heals."""

from __future__ import annotations

import subprocess
from pathlib import Path

import libvirt
import pytest

from vbackup.api import CaptureRequest, NotFound, Quiesce
from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest
from vbackup.testing.lab.libvirtd import Libvirtd, until
from vbackup_libvirt.hypervisor import Libvirt

from .conftest import MIB, OTHER_OWNER, OWNER, backup, copy_all

FOREIGN = (
    "<domaincheckpoint><name>somebody</name><disks><disk name='vda' checkpoint='bitmap'/></disks></domaincheckpoint>"
)


def content(path: Path) -> bytes:
    """Return what an image of a machine that is off holds."""
    raw = path.with_suffix(".flat")
    subprocess.run(["qemu-img", "convert", "-f", path.suffix[1:], "-O", "raw", path, raw], check=True)
    return raw.read_bytes()


def assert_exact(guest: Guest, disks: dict[str, bytearray]) -> None:
    """Switch the machine off and compare its images with copies of its disks."""
    guest.destroy()
    for key, data in disks.items():
        assert data == content(guest.disks[key]), key


def test_full_and_incremental_are_bit_exact(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """A full and two incrementals, compared with the images, of qcow2, raw and old qcow2 disks."""
    guest = make_guest(
        disks=(Disk("vda"), Disk("vdb", format="raw", size=16 * MIB), Disk("vdc", create=("-o", "compat=0.10")))
    )
    guest.start(paused=True)
    guest.qemu_io("vda", "write -P 0xaa 0 8M")
    guest.qemu_io("vdb", "write -P 0xbb 1M 1M")
    guest.qemu_io("vdc", "write -P 0xcc 1M 1M")
    full = backup(hypervisor, guest.name)
    assert full.full_reasons["vda"] == "first backup of this disk"
    guest.qemu_io("vda", "write -P 0x11 4M 1M", "write -P 0x12 40M 64k")
    first = backup(hypervisor, guest.name, full)
    assert first.full_reasons["vda"] is None
    assert first.read["vda"] == MIB + 65536
    assert first.full_reasons["vdb"] == "raw images have no bitmaps"
    assert "qemu-img amend" in str(first.full_reasons["vdc"])
    guest.qemu_io("vda", "write -P 0x21 5M 1M")
    guest.qemu_io("vdb", "write -P 0x22 5M 1M")
    second = backup(hypervisor, guest.name, first)
    assert len(guest.checkpoints) == 1
    assert not second.notes
    assert_exact(guest, second.disks)


def test_zeroed_and_discarded_ranges_come_back_as_zeros(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """What the guest zeroes or discards after a backup is zero in the next one, not what it was."""
    guest = make_guest()
    guest.start(paused=True)
    guest.qemu_io("vda", "write -P 0xaa 0 32M")
    full = backup(hypervisor, guest.name)
    guest.qemu_io("vda", "write -z 8M 1M", "write -z -u 10M 1M", "discard 12M 1M", "write -P 0 14M 1M")
    incremental = backup(hypervisor, guest.name, full)
    assert incremental.full_reasons["vda"] is None
    for offset in (8, 10, 12, 14):
        assert not any(incremental.disks["vda"][offset * MIB : (offset + 1) * MIB]), offset
    assert incremental.disks["vda"][9 * MIB] == 0xAA
    assert_exact(guest, incremental.disks)


def test_the_moment_is_that_of_the_begin(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Writes during the capture are not in it, but in the next one."""
    guest = make_guest()
    guest.start(paused=True)
    guest.qemu_io("vda", "write -P 0xaa 0 8M")
    with hypervisor.capture(guest.name, CaptureRequest(OWNER, quiesce=Quiesce.NO)) as capture:
        guest.qemu_io("vda", "write -P 0xbb 4M 8M")
        full = copy_all(capture)
    assert full.disks["vda"][: 8 * MIB] == b"\xaa" * 8 * MIB
    assert not any(full.disks["vda"][8 * MIB :])
    assert_exact(guest, full.disks | backup(hypervisor, guest.name, full).disks)


def test_what_is_not_captured_is_told(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    """Each disk that is left out is named with the reason."""
    share = f"<filesystem type='mount'><source dir='{tmp_path}'/><target dir='x'/></filesystem>"
    guest = make_guest(
        disks=(
            Disk("vda"),
            Disk("sda", format="raw", bus="sata", device="cdrom", readonly=True),
            Disk("vdb", format="raw", readonly=True),
            Disk("vdc"),
        ),
        extra_devices=f"<disk type='file' device='cdrom'><target dev='sdb' bus='sata'/></disk>{share}",
    )
    guest.start(paused=True)
    request = CaptureRequest(OWNER, quiesce=Quiesce.NO, exclude=frozenset({"vdc"}))
    with hypervisor.capture(guest.name, request) as capture:
        assert [disk.key for disk in capture.disks] == ["vda"]
        assert [disk.key for disk in capture.machine.disks] == ["vda", "vdb", "vdc"]
        assert list(capture.notes) == [
            "disk vdb is not captured: it is read-only",
            f"the shared directory {tmp_path} is not captured",
        ]


def test_a_network_disk_is_captured(
    hypervisor: Libvirt, libvirtd: Libvirtd, make_guest: GuestFactory, tmp_path: Path
) -> None:
    """A disk on an NBD server is read in full, each time."""
    socket = tmp_path / "disk.sock"
    libvirtd.spawn(["nbdkit", "-f", "-U", str(socket), "memory", "16M"])
    guest = make_guest(
        disks=(Disk("vda"),),
        extra_devices=f"""<disk type='network' device='disk'><driver name='qemu' type='raw'/>
        <source protocol='nbd'><host transport='unix' socket='{socket}'/></source>
        <target dev='vdb' bus='virtio'/></disk>""",
    )
    guest.start(paused=True)
    guest.qemu_io("vdb", "write -P 0x77 3M 2M")
    full = backup(hypervisor, guest.name)
    again = backup(hypervisor, guest.name, full)
    assert again.full_reasons == {"vda": None, "vdb": "raw images have no bitmaps"}
    assert again.disks["vdb"] == bytes(3 * MIB) + b"\x77" * 2 * MIB + bytes(11 * MIB)


def test_a_killed_qemu_heals_with_a_reason(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """SIGKILL makes the bitmaps inconsistent: the next run is full and says so, the one after is incremental again."""
    guest = make_guest()
    guest.start(paused=True)
    full = backup(hypervisor, guest.name)
    guest.kill_qemu()  # a first start and end stores the bitmap; only then a kill can leave it in use
    guest.start(paused=True)
    first = backup(hypervisor, guest.name, full)
    guest.destroy()
    guest.start(paused=True)
    guest.qemu_io("vda", "write -P 0x33 1M 1M")
    guest.kill_qemu()
    guest.start(paused=True)
    healed = backup(hypervisor, guest.name, first)
    assert "missing or inconsistent" in str(healed.full_reasons["vda"])
    assert guest.bitmaps["vda"] == guest.checkpoints
    assert len(guest.checkpoints) == 1
    after = backup(hypervisor, guest.name, healed)
    assert after.full_reasons["vda"] is None
    assert_exact(guest, after.disks)


def test_lost_metadata_is_defined_again(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """libvirt may forget the checkpoints; the bitmaps are what counts."""
    guest = make_guest()
    guest.start(paused=True)
    full = backup(hypervisor, guest.name)
    guest.domain.checkpointLookupByName(guest.checkpoints[0]).delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
    guest.qemu_io("vda", "write -P 0x33 1M 1M")
    first = backup(hypervisor, guest.name, full)
    assert first.full_reasons["vda"] is None
    assert first.read["vda"] == MIB
    assert guest.bitmaps["vda"] == guest.checkpoints
    assert_exact(guest, first.disks)


def test_one_missing_bitmap_costs_one_full_read(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """A disk that lost its bitmap is read in full; the other one is not, and no bitmap is left over."""
    guest = make_guest(disks=(Disk("vda"), Disk("vdb")))
    guest.start(paused=True)
    full = backup(hypervisor, guest.name)
    guest.destroy()
    (name,) = guest.checkpoints
    subprocess.run(["qemu-img", "bitmap", "--remove", guest.disks["vdb"], name], check=True)
    guest.start(paused=True)
    first = backup(hypervisor, guest.name, full)
    assert first.full_reasons["vda"] is None
    assert "missing or inconsistent" in str(first.full_reasons["vdb"])
    assert guest.bitmaps == {"vda": guest.checkpoints, "vdb": guest.checkpoints}
    assert_exact(guest, first.disks)


def test_checkpoints_of_others_are_never_touched(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Other programs and other repositories keep theirs, and their tracking."""
    guest = make_guest()
    guest.start(paused=True)
    guest.domain.checkpointCreateXML(FOREIGN, 0)
    other = backup(hypervisor, guest.name, owner=OTHER_OWNER)
    mine = backup(hypervisor, guest.name)
    guest.qemu_io("vda", "write -P 0x33 1M 1M")
    mine = backup(hypervisor, guest.name, mine)
    assert len(guest.checkpoints) == 3
    assert "somebody" in guest.checkpoints
    assert guest.bitmaps["vda"] == guest.checkpoints
    other = backup(hypervisor, guest.name, other, owner=OTHER_OWNER)
    assert other.full_reasons["vda"] is None
    assert other.read["vda"] == MIB
    assert mine.disks == other.disks


@pytest.mark.parametrize("size", [32 * MIB, 96 * MIB])
def test_a_resized_disk_is_read_in_full(hypervisor: Libvirt, make_guest: GuestFactory, size: int) -> None:
    """Larger or smaller, with the sizes in the reason."""
    guest = make_guest(disks=(Disk("vda", format="qcow2"), Disk("vdb")))
    guest.start(paused=True)
    full = backup(hypervisor, guest.name)
    guest.domain.blockResize("vda", size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    first = backup(hypervisor, guest.name, full)
    assert first.full_reasons == {"vda": f"resized from {64 * MIB} to {size} bytes", "vdb": None}
    assert len(first.disks["vda"]) == size


def test_an_external_snapshot_that_came_and_went(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    """While the disk is an overlay it is read in full; after it was committed back the copy is still bit exact."""
    guest = make_guest()
    guest.start(paused=True)
    guest.qemu_io("vda", "write -P 0xaa 0 8M")
    full = backup(hypervisor, guest.name)
    flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    overlay = tmp_path / "overlay.qcow2"
    guest.domain.snapshotCreateXML(
        f"<domainsnapshot><disks><disk name='vda'><source file='{overlay}'/></disk></disks></domainsnapshot>", flags
    )
    guest.qemu_io("vda", "write -P 0xbb 4M 1M")
    during = backup(hypervisor, guest.name, full)
    assert str(during.full_reasons["vda"]).startswith("moved from ")
    assert during.disks["vda"][4 * MIB] == 0xBB
    guest.qemu_io("vda", "write -P 0xcc 5M 1M")
    guest.domain.blockCommit("vda", None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
    until(lambda: guest.domain.blockJobInfo("vda")["cur"] == guest.domain.blockJobInfo("vda")["end"], "the commit")
    guest.domain.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    guest.qemu_io("vda", "write -P 0xdd 6M 1M")
    for base in (full, during):
        copy = backup(hypervisor, guest.name, base)
        assert copy.disks["vda"][4 * MIB : 7 * MIB] == b"".join(bytes([b]) * MIB for b in (0xBB, 0xCC, 0xDD))
    assert_exact(guest, copy.disks)


def test_a_machine_with_internal_snapshots_is_not_tracked(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """QEMU could not revert to them: our checkpoint goes, so that the user can."""
    guest = make_guest()
    guest.start(paused=True)
    guest.qemu_io("vda", "write -P 0xaa 0 8M")
    full = backup(hypervisor, guest.name)
    snapshot = guest.domain.snapshotCreateXML("<domainsnapshot><name>before</name></domainsnapshot>")
    guest.qemu_io("vda", "write -P 0xbb 4M 1M")
    copy = backup(hypervisor, guest.name, full)
    assert "internal snapshots" in str(copy.full_reasons["vda"])
    assert copy.marker is None
    assert guest.checkpoints == []
    guest.domain.revertToSnapshot(guest.domain.snapshotLookupByName(snapshot.getName()))
    reverted = backup(hypervisor, guest.name, copy)
    assert reverted.disks == full.disks
    guest.domain.snapshotLookupByName("before").delete()
    assert backup(hypervisor, guest.name, reverted).marker is not None


def test_a_disk_plugged_in_later_is_read_in_full(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    """The others go on by difference, and the description has it, though the stored configuration does not."""
    guest = make_guest(extra_devices="<controller type='scsi' model='virtio-scsi'/>")
    guest.start(paused=True)
    full = backup(hypervisor, guest.name)
    image = tmp_path / "more.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "8M"], check=True)
    guest.domain.attachDeviceFlags(
        f"""<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{image}'/>
        <target dev='sda' bus='scsi'/></disk>""",
        libvirt.VIR_DOMAIN_AFFECT_LIVE,
    )
    first = backup(hypervisor, guest.name, full)
    assert first.full_reasons == {"vda": None, "sda": "its changes were not tracked since the last backup"}
    assert {disk.key: disk.size for disk in first.description.disks} == {"vda": 64 * MIB, "sda": 8 * MIB}


def test_a_failed_capture_leaves_nothing(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """No checkpoint, no bitmap, no scratch file; and the next run is incremental to the last good one."""
    guest = make_guest()
    guest.start(paused=True)
    full = backup(hypervisor, guest.name)
    kept = guest.checkpoints
    with (
        pytest.raises(ZeroDivisionError),
        hypervisor.capture(guest.name, CaptureRequest(OWNER, full.marker, Quiesce.NO)),
    ):
        raise ZeroDivisionError
    assert guest.checkpoints == kept
    assert guest.bitmaps["vda"] == kept
    assert not list(Path("/var/lib/libvirt/qemu/vbackup").iterdir())
    guest.qemu_io("vda", "write -P 0x33 1M 1M")
    assert backup(hypervisor, guest.name, full).read["vda"] == MIB


def test_a_capture_that_is_not_committed_is_removed_by_the_next(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Its checkpoint was only pending."""
    guest = make_guest()
    guest.start(paused=True)
    full = backup(hypervisor, guest.name)
    with hypervisor.capture(guest.name, CaptureRequest(OWNER, full.marker, Quiesce.NO)) as capture:
        copy_all(capture, full)
    assert len(guest.checkpoints) == 2
    with hypervisor.capture(guest.name, CaptureRequest(OWNER, full.marker, Quiesce.NO)) as capture:
        assert len(guest.checkpoints) == 2
        assert capture.marker is not None
        assert {full.marker["checkpoint"], capture.marker["checkpoint"]} == set(guest.checkpoints)  # type: ignore[index]


def test_a_machine_that_is_not_there(hypervisor: Libvirt) -> None:
    """It is named."""
    with (
        pytest.raises(NotFound, match="looking for the machine nobody"),
        hypervisor.capture("nobody", CaptureRequest(OWNER)),
    ):
        pass
