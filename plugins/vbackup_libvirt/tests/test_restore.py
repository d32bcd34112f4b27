"""Machines are put back: as new ones, over themselves, or just their disks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import libvirt
import pytest

from vbackup.api import AlreadyExists, Busy, NoSpace, NotFound, RestoreDisk, RestoreRequest
from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest
from vbackup.testing.lab.libvirtd import Libvirtd
from vbackup_libvirt.hypervisor import Libvirt

from .conftest import MIB, OTHER_OWNER, OWNER, Copy, backup, restore, runs
from .test_running import FOREIGN, assert_exact


def written(guest: Guest, hypervisor: Libvirt) -> Copy:
    """Start the machine, write to its disks and back it up; it runs on."""
    guest.start(paused=True)
    for number, key in enumerate(guest.disks):
        guest.qemu_io(key, f"write -P {0x40 + number} 1M 3M")
    return backup(hypervisor, guest.name)


def paths(guest: Guest) -> dict[str, Path]:
    """Return where its disks are, those on a network left out."""
    sources = {disk.find("target").get("dev"): disk.find("source") for disk in guest.xml().iterfind("devices/disk")}  # type: ignore[union-attr]
    return {
        str(key): Path(source.attrib["file"])
        for key, source in sources.items()
        if source is not None and "file" in source.attrib
    }


def test_as_a_new_machine(hypervisor: Libvirt, images: Path, make_guest: GuestFactory) -> None:
    """Beside the old one, which runs on: own name, UUID, MAC, disks and console."""
    guest = make_guest(
        disks=(Disk("vda"), Disk("vdb", format="raw", size=16 * MIB), Disk("sda", bus="sata", device="cdrom")),
        extra_devices="<interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/></interface>",
    )
    copy = written(guest, hypervisor)
    guest.disks["sda"].unlink()
    said, notes = restore(hypervisor, copy, RestoreRequest(name="copy", start=True))
    new = make_guest.adopt("copy")
    assert said == "the machine copy is defined and running"
    assert new.domain.isActive()
    assert guest.domain.isActive()
    assert new.uuid != guest.uuid
    assert new.xml().find("devices/interface/mac").get("address") != "52:54:00:11:22:33"  # type: ignore[union-attr]
    assert {key: path for key, path in new.disks.items() if key != "sda"} == {
        "vda": images / "copy-vda.qcow2",
        "vdb": images / "copy-vdb.raw",
    }
    assert all((images / name).stat().st_blocks * 512 < 6 * MIB for name in ("copy-vda.qcow2", "copy-vdb.raw"))
    assert any(note.startswith("cdrom sda is empty") for note in notes)
    assert any("serial console is a pty" in note for note in notes)
    assert_exact(new, copy.disks)


def test_a_name_that_is_taken_is_refused(hypervisor: Libvirt, images: Path, make_guest: GuestFactory) -> None:
    """Before a byte is written."""
    guest = make_guest()
    copy = written(guest, hypervisor)
    with pytest.raises(AlreadyExists, match="another machine of the name"):
        restore(hypervisor, copy, RestoreRequest(name=guest.name))
    assert not list(images.iterdir())


def test_a_file_in_the_way_is_refused(hypervisor: Libvirt, images: Path, make_guest: GuestFactory) -> None:
    """A new machine never replaces a file."""
    copy = written(make_guest(), hypervisor)
    (images / "copy-vda.qcow2").write_bytes(b"precious")
    with pytest.raises(AlreadyExists, match=r"copy-vda\.qcow2 is there already"):
        restore(hypervisor, copy, RestoreRequest(name="copy", overwrite=True))
    assert (images / "copy-vda.qcow2").read_bytes() == b"precious"


def test_over_itself(hypervisor: Libvirt, images: Path, make_guest: GuestFactory) -> None:
    """Off, and only with overwrite: same UUID and places; our checkpoints are forgotten, others are told."""
    guest = make_guest(disks=(Disk("vda"), Disk("vdb", format="raw", size=16 * MIB)))
    copy = written(guest, hypervisor)
    backup(hypervisor, guest.name, owner=OTHER_OWNER)
    guest.domain.checkpointCreateXML(FOREIGN, 0)
    uuid, disks = guest.uuid, guest.disks
    guest.qemu_io("vda", "write -P 0x66 0 8M")
    with pytest.raises(AlreadyExists, match="is there already"):
        restore(hypervisor, copy, RestoreRequest())
    with pytest.raises(Busy, match="is running"):
        restore(hypervisor, copy, RestoreRequest(overwrite=True))
    guest.destroy()
    said, notes = restore(hypervisor, copy, RestoreRequest(overwrite=True))
    assert said == f"the machine {guest.name} is defined"
    assert notes == ["the checkpoint somebody is not ours, and has lost its bitmaps"]
    assert (guest.uuid, guest.disks) == (uuid, disks)
    assert guest.checkpoints == ["somebody"]
    assert_exact(guest, copy.disks)
    guest.start(paused=True)
    healed = backup(hypervisor, guest.name, copy)
    assert healed.full_reasons["vda"] == "its image was replaced by another file"


def test_saved_memory_does_not_go_on_with_other_disks(
    hypervisor: Libvirt, images: Path, make_guest: GuestFactory
) -> None:
    """A backup tells of it; a restore removes it, for it would destroy the file systems."""
    guest = make_guest()
    guest.start(paused=True)
    guest.domain.managedSave(0)
    copy = backup(hypervisor, guest.name)
    assert not copy.quiesced
    assert copy.notes == ["its memory is saved and is not captured: the disks are as if the plug had been pulled"]
    _, notes = restore(hypervisor, copy, RestoreRequest(overwrite=True))
    assert notes == ["its saved memory did not belong to these disks, and was removed"]
    assert not guest.domain.hasManagedSaveImage(0)


def test_a_machine_that_is_started_meanwhile(hypervisor: Libvirt, images: Path, make_guest: GuestFactory) -> None:
    """Its disks are not pulled from under it."""
    guest = make_guest()
    copy = written(guest, hypervisor)
    guest.destroy()
    disks = [RestoreDisk("vda", 64 * MIB, "qcow2")]
    with hypervisor.restore(copy.description, disks, {}, RestoreRequest(overwrite=True)) as restoration:
        restoration.disks["vda"].write(runs(bytearray(64 * MIB)))
        guest.start(paused=True)
        with pytest.raises(Busy, match="was started meanwhile"):
            restoration.finish()
    assert_exact(guest, copy.disks)


def test_a_file_that_appears_meanwhile(hypervisor: Libvirt, images: Path, make_guest: GuestFactory) -> None:
    """It is neither replaced nor removed."""
    copy = written(make_guest(), hypervisor)
    disks = [RestoreDisk("vda", MIB, "qcow2")]
    with hypervisor.restore(copy.description, disks, {}, RestoreRequest(name="copy")) as restoration:
        restoration.disks["vda"].write(runs(bytearray(MIB)))
        (images / "copy-vda.qcow2").write_bytes(b"precious")
        with pytest.raises(AlreadyExists, match="meanwhile"):
            restoration.finish()
    assert [(path.name, path.read_bytes()) for path in images.iterdir()] == [("copy-vda.qcow2", b"precious")]


def test_one_that_is_not_defined_any_more(hypervisor: Libvirt, images: Path, make_guest: GuestFactory) -> None:
    """It comes back with its UUID; its disks go to the storage directory, if they were not in a place for disks."""
    guest = make_guest()
    copy = written(guest, hypervisor)
    uuid, old = guest.uuid, guest.disks["vda"]
    guest.remove()
    _, notes = restore(hypervisor, copy, RestoreRequest())
    assert guest.uuid == uuid
    assert guest.disks == {"vda": images / f"{guest.name}-vda.qcow2"}
    assert any(f"disk vda was at {old}" in note for note in notes)
    assert_exact(guest, copy.disks)
    guest.undefine()
    with pytest.raises(AlreadyExists):
        restore(hypervisor, copy, RestoreRequest())
    restore(hypervisor, copy, RestoreRequest(overwrite=True))
    assert guest.uuid == uuid


def test_only_some_disks(hypervisor: Libvirt, images: Path, make_guest: GuestFactory, tmp_path: Path) -> None:
    """To files, in a format by the suffix; no machine is defined, and existing files need overwrite."""
    guest = make_guest(disks=(Disk("vda"), Disk("vdb")))
    copy = written(guest, hypervisor)
    request = RestoreRequest(disks={"vdb": tmp_path / "b.raw"})
    said, _ = restore(hypervisor, copy, request)
    assert said == f"wrote disk vdb to {tmp_path}/b.raw"
    assert (tmp_path / "b.raw").read_bytes() == copy.disks["vdb"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["b.raw"]
    with pytest.raises(AlreadyExists):
        restore(hypervisor, copy, request)
    restore(hypervisor, copy, RestoreRequest(disks={"vdb": tmp_path / "b.raw"}, overwrite=True))
    with pytest.raises(NotFound, match="no disk vdx"):
        restore(hypervisor, copy, RestoreRequest(disks={"vdx": tmp_path / "x"}))
    with pytest.raises(NotFound, match="no directory"):
        restore(hypervisor, copy, RestoreRequest(disks={"vdb": tmp_path / "no/x"}))
    with pytest.raises(Busy):
        restore(hypervisor, copy, RestoreRequest(disks={"vdb": guest.disks["vda"]}, overwrite=True))


def test_to_a_block_device(hypervisor: Libvirt, images: Path, make_guest: GuestFactory, tmp_path: Path) -> None:
    """In place and raw, zeros written; a smaller one is refused before a byte."""
    copy = written(make_guest(), hypervisor)
    backing = tmp_path / "device"
    backing.write_bytes(b"\xee" * 64 * MIB)
    device = subprocess.check_output(["losetup", "--show", "-f", backing], text=True).strip()
    try:
        with pytest.raises(AlreadyExists):
            restore(hypervisor, copy, RestoreRequest(disks={"vda": Path(device)}))
        restore(hypervisor, copy, RestoreRequest(disks={"vda": Path(device)}, overwrite=True))
        assert Path(device).read_bytes() == copy.disks["vda"]
        big = RestoreDisk("vda", 128 * MIB, "raw")
        request = RestoreRequest(disks={"vda": Path(device)}, overwrite=True)
        with (
            pytest.raises(NoSpace, match=str(128 * MIB)),
            hypervisor.restore(copy.description, [big], {}, request),
        ):
            pass
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def test_a_failed_restore_leaves_nothing(hypervisor: Libvirt, images: Path, make_guest: GuestFactory) -> None:
    """Neither files nor a machine; and the machine that was to be overwritten is as it was."""
    guest = make_guest()
    copy = written(guest, hypervisor)
    guest.destroy()
    before = guest.disks["vda"].read_bytes()
    disks = [RestoreDisk("vda", 64 * MIB, "qcow2")]
    for request in (RestoreRequest(name="copy"), RestoreRequest(overwrite=True)):
        with pytest.raises(ZeroDivisionError), hypervisor.restore(copy.description, disks, {}, request):
            raise ZeroDivisionError
    assert not list(images.iterdir())
    assert [path.name for path in guest.disks["vda"].parent.iterdir() if "vbackup-" in path.name] == []
    assert guest.disks["vda"].read_bytes() == before
    assert not make_guest.adopt("copy").exists
    assert hypervisor.sweep(OWNER) == []


def test_firmware_variables_and_tpm_come_back(
    hypervisor: Libvirt, images: Path, make_guest: GuestFactory, libvirtd: Libvirtd
) -> None:
    """As files of the new machine's own; the old one's are not shared."""
    guest = make_guest(uefi=True, tpm=True)
    guest.start(paused=True)
    copy = backup(hypervisor, guest.name)
    assert set(copy.files) == {"nvram", "tpm"}
    assert copy.description.firmware == "uefi"
    assert copy.description.tpm
    old = Path(f"/var/lib/libvirt/swtpm/{guest.uuid}/tpm2/tpm2-00.permall").read_bytes()
    nvram = Path(str(guest.xml().findtext("os/nvram")))
    assert copy.files["nvram"] == nvram.read_bytes()
    restore(hypervisor, copy, RestoreRequest(name="copy"))
    new = make_guest.adopt("copy")
    own = Path(str(new.xml().findtext("os/nvram")))
    assert own != nvram
    assert own.read_bytes() == copy.files["nvram"]
    assert Path(f"/var/lib/libvirt/swtpm/{new.uuid}/tpm2/tpm2-00.permall").read_bytes() == old
    guest.destroy()
    stale = Path(f"/var/lib/libvirt/swtpm/{guest.uuid}/tpm2/tpm2-00.volatilestate")
    stale.write_bytes(b"of another time")
    nvram.write_bytes(b"broken")
    restore(hypervisor, copy, RestoreRequest(overwrite=True))
    assert not stale.exists()
    assert nvram.read_bytes() == copy.files["nvram"]
    new.start(paused=True)
    assert new.domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED


def test_a_disk_on_a_network_comes_back_as_a_file(
    hypervisor: Libvirt, images: Path, libvirtd: Libvirtd, make_guest: GuestFactory, tmp_path: Path
) -> None:
    """With a note; and an excluded disk that the machine still has stays."""
    socket = tmp_path / "disk.sock"
    libvirtd.spawn(["nbdkit", "-f", "-U", str(socket), "memory", "16M"])
    guest = make_guest(
        disks=(Disk("vda"), Disk("vdc")),
        extra_devices=f"""<disk type='network' device='disk'><driver name='qemu' type='raw'/>
        <source protocol='nbd'><host transport='unix' socket='{socket}'/></source>
        <target dev='vdb' bus='virtio'/></disk>""",
    )
    guest.start(paused=True)
    guest.qemu_io("vdb", "write -P 0x77 3M 2M")
    copy = backup(hypervisor, guest.name, exclude=frozenset({"vdc"}))
    kept = paths(guest)["vdc"]
    guest.destroy()
    _, notes = restore(hypervisor, copy, RestoreRequest(overwrite=True))
    assert paths(guest)["vdb"] == images / f"{guest.name}-vdb.raw"
    assert paths(guest)["vdc"] == kept
    assert any(note.startswith("disk vdb was on nbd:") for note in notes)
    assert_exact(guest, copy.disks)
    _, notes = restore(hypervisor, copy, RestoreRequest(name="copy"))
    new = make_guest.adopt("copy")
    assert set(new.disks) == {"vda", "vdb"}
    assert any("disk vdc" in note and "is without it" in note for note in notes)
