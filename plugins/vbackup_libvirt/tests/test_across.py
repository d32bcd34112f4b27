"""A machine of another hypervisor, built from our description of it: it boots, with its data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.uefi import uefi_disk
from vbackup.api import NativeDocument, RestoreRequest
from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest, copy_disk
from vbackup_libvirt.hypervisor import Libvirt

from .conftest import Copy, backup, restore

NETWORK = "<network><name>lab</name><bridge name='vb-lab'/></network>"


def from_elsewhere(copy: Copy, **changes: object) -> Copy:
    """Return a copy as if another hypervisor had made it."""
    native = NativeDocument(kind="vsphere-config", text="{}")
    machine = copy.description.model_copy(update={"native": native, "drivers": (), **changes})
    return Copy(machine, copy.disks, None, copy.files, [], copy.quiesced)


def arrive(
    hypervisor: Libvirt, make_guest: GuestFactory, copy: Copy, request: RestoreRequest
) -> tuple[Guest, list[str]]:
    """Restore a machine and start it."""
    said, notes = restore(hypervisor, copy, request)
    assert said.endswith("and running"), notes
    return make_guest.adopt(request.name or copy.description.name), notes


def drivers(guest: Guest) -> set[str]:
    """Return the drivers of the guest that have a device."""
    bound = guest.exec("ls -d /sys/bus/pci/drivers/*/0000:* /sys/bus/virtio/drivers/*/virtio* 2>/dev/null || true")
    return {Path(line).parent.name for line in bound.split()}


@pytest.mark.guest
def test_a_guest_boots_with_its_data(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """On SATA and e1000e, which a system has drivers for wherever it comes from."""
    nic = "<interface type='user'><mac address='00:50:56:01:02:03'/></interface>"
    guest = make_guest(bootable=True, extra_devices=nic)
    guest.start()
    digest = guest.exec("mkdir -p /data/keep; head -c 300000 /dev/urandom >/data/keep/a; sync; sha256sum /data/keep/a")
    guest.shutdown()
    copy = backup(hypervisor, guest.name)
    uuid = guest.uuid
    guest.remove()
    again, notes = arrive(hypervisor, make_guest, from_elsewhere(copy), RestoreRequest(start=True, overwrite=True))
    assert digest.split()[0] in again.found
    assert again.uuid == uuid
    assert {"ahci", "e1000e"} <= drivers(again)
    assert again.exec("cat /sys/class/net/e*/address").strip() == "00:50:56:01:02:03"
    assert [note for note in notes if "network card 1 (00:50:56:01:02:03) is unplugged" in note]


@pytest.mark.guest
def test_a_guest_boots_by_secure_boot(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    """With no boot entries of its own, from virtio disks, since it is known to boot with those."""
    boot = copy_disk(uefi_disk(), tmp_path / "boot.qcow2")
    guest = make_guest(bootable=True, disks=(Disk("vdc", path=boot),), uefi=True, memory=512)
    copy = backup(hypervisor, guest.name, exclude=frozenset({"vda"}))
    guest.remove()
    disks = tuple(
        disk.model_copy(update={"boot_order": 1 if disk.key == "vdc" else None}) for disk in copy.description.disks
    )
    machine = from_elsewhere(copy, disks=disks, secure_boot=True, drivers=("virtio",))
    again, notes = arrive(hypervisor, make_guest, machine, RestoreRequest(name="arrived", start=True))
    assert "Secure boot enabled" in again.exec("dmesg")
    assert "FOUND" in again.found
    assert "virtio_blk" in drivers(again)
    assert [note for note in notes if note.startswith("its boot entries are not carried over")]
    assert [note for note in notes if note.startswith("disk vda (") and "is not in the restore point" in note]
