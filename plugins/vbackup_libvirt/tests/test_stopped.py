"""Machines that are off, and the ways between on and off."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import libvirt
import pytest

from vbackup.api import Busy, CaptureRequest, Quiesce
from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup_libvirt.hypervisor import Libvirt

from .conftest import MIB, OTHER_OWNER, OWNER, backup, copy_all
from .test_running import assert_exact


def image_bitmaps(path: Path) -> list[str]:
    """Return the bitmaps in an image that nobody has open."""
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", path]))
    return [bitmap["name"] for bitmap in info["format-specific"]["data"].get("bitmaps", [])]


def write(path: Path, *commands: str) -> None:
    """Write to an image of a machine that is off."""
    arguments = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", path.suffix[1:], *arguments, path], check=True, stdout=subprocess.DEVNULL)


def test_full_and_incremental_while_off(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Bit exact, zeros and discards included; one bitmap remains."""
    guest = make_guest(disks=(Disk("vda"), Disk("vdb", format="raw", size=16 * MIB)))
    write(guest.disks["vda"], "write -P 0xaa 0 32M")
    write(guest.disks["vdb"], "write -P 0xbb 0 1M")
    full = backup(hypervisor, guest.name)
    assert full.full_reasons["vda"] == "first backup of this disk"
    write(guest.disks["vda"], "write -P 0x11 4M 1M", "write -z 8M 1M", "discard 12M 1M")
    first = backup(hypervisor, guest.name, full)
    assert first.full_reasons == {"vda": None, "vdb": "raw images have no bitmaps"}
    assert first.read["vda"] == MIB
    assert image_bitmaps(guest.disks["vda"]) == guest.checkpoints
    assert len(guest.checkpoints) == 1
    assert_exact(guest, first.disks)


def test_off_on_off(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Incremental all the way: each state's marker serves the other."""
    guest = make_guest()
    write(guest.disks["vda"], "write -P 0xaa 0 8M")
    copy = backup(hypervisor, guest.name)
    for round_ in range(2):
        guest.start(paused=True)
        guest.qemu_io("vda", f"write -P {16 + round_} {round_ + 10}M 1M")
        copy = backup(hypervisor, guest.name, copy)
        assert copy.full_reasons == {"vda": None}
        assert copy.read["vda"] == MIB
        guest.destroy()
        write(guest.disks["vda"], f"write -P {32 + round_} {round_ + 20}M 1M")
        copy = backup(hypervisor, guest.name, copy)
        assert copy.full_reasons == {"vda": None}
        assert copy.read["vda"] == MIB
    assert_exact(guest, copy.disks)


def test_the_metadata_of_an_offline_checkpoint_may_be_lost(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """It is defined again when the machine runs."""
    guest = make_guest()
    copy = backup(hypervisor, guest.name)
    (name,) = guest.checkpoints
    guest.domain.checkpointLookupByName(name).delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
    guest.start(paused=True)
    assert backup(hypervisor, guest.name, copy).full_reasons == {"vda": None}


def test_it_is_consistent_only_if_the_guest_shut_down(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """A machine whose plug was pulled is not called quiesced; nor does it fail where freezing was asked for."""
    guest = make_guest()
    guest.start(paused=True)
    guest.destroy()
    assert not backup(hypervisor, guest.name, quiesce=Quiesce.YES).quiesced


def test_a_killed_qemu_costs_a_full_read(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """The bitmap is inconsistent; it is told, replaced and removed."""
    guest = make_guest()
    full = backup(hypervisor, guest.name)
    guest.start(paused=True)
    guest.qemu_io("vda", "write -P 0x33 1M 1M")
    guest.kill_qemu()
    healed = backup(hypervisor, guest.name, full)
    assert healed.full_reasons == {"vda": "its bitmap is inconsistent: QEMU was killed"}
    assert image_bitmaps(guest.disks["vda"]) == guest.checkpoints
    assert backup(hypervisor, guest.name, healed).full_reasons == {"vda": None}
    assert_exact(guest, healed.disks)


def test_an_image_that_went_back_in_time(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    """The bitmaps are in the image and go back with it: what they say stays true, or they are gone."""
    guest = make_guest()
    image, saved = guest.disks["vda"], tmp_path / "saved"
    write(image, "write -P 0xaa 0 8M")
    base = backup(hypervisor, guest.name)
    write(image, "write -P 0xbb 1M 1M")
    shutil.copy(image, saved)
    write(image, "write -P 0xcc 2M 1M")
    shutil.copy(saved, image)
    first = backup(hypervisor, guest.name, base)
    assert first.full_reasons == {"vda": None}
    assert first.disks["vda"][: 4 * MIB] == b"\xaa" * MIB + b"\xbb" * MIB + b"\xaa" * 2 * MIB
    shutil.copy(saved, image)
    write(image, "write -P 0xdd 3M 1M")
    second = backup(hypervisor, guest.name, first)
    assert second.full_reasons == {"vda": "its bitmap is gone"}
    assert_exact(guest, second.disks)


def test_a_lost_bitmap_and_a_resize_cost_a_full_read(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Each of that disk alone."""
    guest = make_guest(disks=(Disk("vda"), Disk("vdb"), Disk("vdc")))
    full = backup(hypervisor, guest.name)
    (name,) = guest.checkpoints
    subprocess.run(["qemu-img", "bitmap", "--remove", guest.disks["vda"], name], check=True)
    subprocess.run(["qemu-img", "resize", "-q", guest.disks["vdb"], "96M"], check=True)
    first = backup(hypervisor, guest.name, full)
    assert first.full_reasons == {
        "vda": "its bitmap is gone",
        "vdb": f"resized from {64 * MIB} to {96 * MIB} bytes",
        "vdc": None,
    }


def test_a_failed_capture_leaves_nothing(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Neither bitmaps nor checkpoints."""
    guest = make_guest()
    with pytest.raises(ZeroDivisionError), hypervisor.capture(guest.name, CaptureRequest(OWNER)):
        raise ZeroDivisionError
    assert guest.checkpoints == []
    assert image_bitmaps(guest.disks["vda"]) == []


def test_bitmaps_of_others_stay_and_orphans_go(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Orphans are ours, without a living maker; with and without metadata."""
    guest = make_guest()
    image = guest.disks["vda"]
    orphan, others = f"vbackup-{OWNER[:8]}-00000000", [f"vbackup-{OTHER_OWNER[:8]}-00000000", "somebody"]
    for name in (orphan, *others):
        subprocess.run(["qemu-img", "bitmap", "--add", image, name], check=True)
    copy = backup(hypervisor, guest.name)
    assert sorted(image_bitmaps(image)) == sorted([*others, *guest.checkpoints])
    guest.start(paused=True)
    copy = backup(hypervisor, guest.name, copy)
    assert guest.bitmaps["vda"] == sorted([*others, *guest.checkpoints])
    assert copy.full_reasons == {"vda": None}


def test_the_machine_cannot_start_meanwhile(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Its images are locked while they are read; nothing is lost by the try."""
    guest = make_guest()
    with hypervisor.capture(guest.name, CaptureRequest(OWNER)) as capture:
        with pytest.raises(libvirt.libvirtError, match="lock"):
            guest.start(paused=True)
        copy_all(capture)
    guest.start(paused=True)


def test_images_in_use_elsewhere_are_busy(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Another machine runs on the same image."""
    guest = make_guest()
    second = make_guest(disks=(Disk("vda", path=guest.disks["vda"]),))
    second.start(paused=True)
    with pytest.raises(Busy, match=r"vda\.qcow2 is in use"), hypervisor.capture(guest.name, CaptureRequest(OWNER)):
        pass


def test_firmware_variables_of_a_machine_that_never_ran(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """There are none yet: a note, and the machine is captured."""
    guest = make_guest(uefi=True, tpm=True)
    copy = backup(hypervisor, guest.name)
    assert copy.files == {}
    assert len([note for note in copy.notes if "there is none yet" in note]) == 2
