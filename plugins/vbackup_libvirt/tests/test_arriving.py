"""What a machine of another hypervisor comes to here, without starting it; see test_across.py for booting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from vbackup.api import (
    AlreadyExists,
    ClockOffset,
    ConfigError,
    DiskDescription,
    Firmware,
    Guest,
    MachineDescription,
    NativeDocument,
    Nic,
    RestoreDisk,
    RestoreRequest,
    Unsupported,
)
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.libvirtd import Libvirtd
from vbackup_libvirt import across, convert
from vbackup_libvirt.capabilities import Capabilities
from vbackup_libvirt.hypervisor import Libvirt

from .conftest import MIB, Copy, Hypervisors, restore

UUID = "5003d0ef-3a4b-4c5d-8e9f-0123456789ab"
SAME = RestoreRequest()
MACHINE = MachineDescription(
    name="web",
    id=UUID,
    cpus=4,
    cores=2,
    memory=64 * MIB,
    clock=ClockOffset.LOCALTIME,
    guest=Guest.LINUX,
    disks=(
        DiskDescription(key="2001", size=MIB, format="vmdk", bus="scsi", controller="pvscsi", source="[ds] b.vmdk"),
        DiskDescription(key="2000", size=MIB, format="vmdk", bus="scsi", controller="pvscsi", boot_order=2),
    ),
    nics=(
        Nic(mac="00:50:56:00:00:01", model="vmxnet3", network="VM Network", boot_order=1),
        Nic(mac="00:50:56:00:00:02", model="vmxnet3", network="DMZ", connected=False),
    ),
    native=NativeDocument(kind="vsphere-config", text="{}"),
)
WINDOWS = MACHINE.model_copy(update={"guest": Guest.WINDOWS})


def copy_of(machine: MachineDescription) -> Copy:
    """Return a copy with as many disks as the machine has, all zeros but for the first byte."""
    disks = {disk.key: bytearray(disk.key.encode().ljust(MIB, b"\0")) for disk in machine.disks}
    return Copy(machine, disks, None, {}, [], quiesced=False)


@pytest.fixture
def lan(libvirtd: Libvirtd) -> Iterator[str]:
    """A network that libvirt has; it is not started."""
    with libvirtd.connection() as connection:
        network = connection.networkDefineXML("<network><name>lan</name><bridge name='vb-lan'/></network>")
        yield "lan"
        network.undefine()


def attributes(domain: Element, path: str, name: str) -> list[str | None]:
    """Return an attribute of all elements at a path."""
    return [element.get(name) for element in domain.iterfind(path)]


def test_the_hardware(make_hypervisor: Hypervisors, images: Path, make_guest: GuestFactory, lan: str) -> None:
    """What the description says, on devices that any system boots with."""
    hypervisor = make_hypervisor(storage=images, networks={"VM Network": lan, "DMZ": "bridge:br-dmz"})
    said, notes = restore(hypervisor, copy_of(MACHINE), SAME)
    assert said == "the machine web is defined"
    domain = make_guest.adopt("web").xml()
    assert domain.findtext("uuid") == UUID
    assert domain.findtext("vcpu") == "4"
    assert domain.findtext("memory") == str(64 << 10)
    assert attributes(domain, "cpu/topology", "sockets") == ["2"]
    assert attributes(domain, "clock", "offset") == ["localtime"]
    assert attributes(domain, "devices/disk/target", "dev") == ["sda", "sdb"]
    assert attributes(domain, "devices/disk/target", "bus") == ["sata", "sata"]
    assert attributes(domain, "devices/disk/source", "file") == [str(images / f"web-{n}.qcow2") for n in (2000, 2001)]
    assert attributes(domain, "devices/disk/boot", "order") == ["2"]
    assert attributes(domain, "devices/interface/model", "type") == ["e1000e", "e1000e"]
    assert attributes(domain, "devices/interface/mac", "address") == ["00:50:56:00:00:01", "00:50:56:00:00:02"]
    assert attributes(domain, "devices/interface", "type") == ["network", "bridge"]
    assert attributes(domain, "devices/interface/boot", "order") == ["1"]
    assert attributes(domain, "devices/interface/link", "state") == ["down"]
    assert [note for note in notes if note.startswith("its disks are on SATA")]
    assert not [note for note in notes if "unplugged" in note]


def test_a_system_that_knows_virtio(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Gets it, by the controller that it had."""
    machine = MACHINE.model_copy(update={"drivers": ("vmware", "virtio")})
    restore(hypervisor, copy_of(machine), SAME)
    domain = make_guest.adopt("web").xml()
    assert attributes(domain, "devices/disk/target", "dev") == ["vda", "vdb"]
    assert attributes(domain, "devices/interface/model", "type") == ["virtio", "virtio"]
    disks = tuple(disk.model_copy(update={"controller": "virtio-scsi"}) for disk in MACHINE.disks)
    restore(hypervisor, copy_of(machine.model_copy(update={"disks": disks})), RestoreRequest(name="scsi"))
    domain = make_guest.adopt("scsi").xml()
    assert attributes(domain, "devices/disk/target", "bus") == ["scsi", "scsi"]
    assert attributes(domain, "devices/controller[@type='scsi']", "model") == ["virtio-scsi"]


def test_a_network_that_nobody_knows(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """The card is there, unplugged, which is told before a byte is written."""
    copy = copy_of(MACHINE)
    disks = [RestoreDisk(key, MIB, "vmdk") for key in copy.disks]
    with hypervisor.restore(MACHINE, disks, {}, SAME) as restoration:
        told = [note for note in restoration.notes if "is unplugged" in note]
        assert [note[:14] for note in told] == ["network card 1", "network card 2"]
    restore(hypervisor, copy, SAME)
    assert attributes(make_guest.adopt("web").xml(), "devices/interface/link", "state") == ["down", "down"]


def test_a_mapping_that_leads_nowhere(make_hypervisor: Hypervisors, images: Path) -> None:
    """An error, and nothing is made."""
    hypervisor = make_hypervisor(storage=images, networks={"VM Network": "missing"})
    with pytest.raises(ConfigError, match="'VM Network' is mapped to 'missing'"):
        restore(hypervisor, copy_of(MACHINE), SAME)
    assert list(images.iterdir()) == []


def test_as_another_machine(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """With an identity of its own."""
    restore(hypervisor, copy_of(MACHINE), RestoreRequest(name="copy"))
    domain = make_guest.adopt("copy").xml()
    assert domain.findtext("uuid") != UUID
    macs = attributes(domain, "devices/interface/mac", "address")
    assert not set(macs) & {nic.mac for nic in MACHINE.nics}


def test_over_itself(hypervisor: Libvirt, make_guest: GuestFactory, images: Path) -> None:
    """Once more: only with --overwrite, in the same files, with the name that it has now."""
    restore(hypervisor, copy_of(MACHINE), SAME)
    make_guest.adopt("web")
    with pytest.raises(AlreadyExists):
        restore(hypervisor, copy_of(MACHINE), SAME)
    (images / "web-2000.qcow2").write_bytes(b"something else")
    said, _ = restore(hypervisor, copy_of(MACHINE), RestoreRequest(overwrite=True))
    assert said == "the machine web is defined"
    assert sorted(path.name for path in images.iterdir()) == ["web-2000.qcow2", "web-2001.qcow2"]
    assert (images / "web-2000.qcow2").read_bytes()[:3] == b"QFI"


def test_an_identity_that_is_no_uuid(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """It gets one, with a note."""
    _, notes = restore(hypervisor, copy_of(MACHINE.model_copy(update={"id": "vm-57"})), SAME)
    uuid = make_guest.adopt("web").uuid
    assert f"its UUID is {uuid}: 'vm-57', as which it was known, is none" in notes


def test_another_processor(hypervisor: Libvirt, images: Path) -> None:
    """It is not built, and its disks can be had."""
    machine = MACHINE.model_copy(update={"arch": "aarch64"})
    with pytest.raises(Unsupported, match="--disk KEY=PATH"):
        restore(hypervisor, copy_of(machine), SAME)
    said, _ = restore(hypervisor, copy_of(machine), RestoreRequest(disks={k: images / k for k in ("2000", "2001")}))
    assert said.startswith("wrote disk 2000")


def test_what_the_host_cannot_give(
    hypervisor: Libvirt, make_guest: GuestFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secure Boot and a TPM are left out with notes; UEFI as such is needed."""
    machine = MACHINE.model_copy(update={"firmware": Firmware.UEFI, "secure_boot": True, "tpm": True})
    poor = Capabilities("qemu", "/usr/bin/qemu-system-x86_64", tpm=False, firmwares=frozenset({frozenset()}))
    monkeypatch.setattr(across, "capabilities", lambda _: poor)
    _, notes = restore(hypervisor, copy_of(machine), SAME)
    assert [note for note in notes if note.startswith("Secure Boot is off")]
    assert [note for note in notes if note.startswith("it has no TPM any more")]
    assert make_guest.adopt("web").xml().find("devices/tpm") is None
    without = Capabilities("qemu", "", tpm=False, firmwares=frozenset())
    monkeypatch.setattr(across, "capabilities", lambda _: without)
    with pytest.raises(Unsupported, match="boots by UEFI"):
        restore(hypervisor, copy_of(machine), RestoreRequest(name="other"))


def test_secure_boot_and_a_tpm(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """A firmware with keys, and variables of the machine's own: those of a former one make way."""
    machine = MACHINE.model_copy(update={"firmware": Firmware.UEFI, "secure_boot": True, "tpm": True})
    stale = Path(f"/var/lib/libvirt/qemu/nvram/web-{UUID[:8]}_VARS.fd")
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.write_bytes(b"stale")
    _, notes = restore(hypervisor, copy_of(machine), SAME)
    guest = make_guest.adopt("web")
    assert not stale.exists()
    guest.start(paused=True)
    domain = guest.xml()
    assert attributes(domain, "os/loader", "secure") == ["yes"]
    assert (domain.findtext("os/nvram") or "") == str(stale)
    assert stale.stat().st_size > MIB // 8
    assert domain.find("devices/tpm/backend[@type='emulator']") is not None
    assert [note for note in notes if note.startswith("its TPM is a new one")]


V2V = """#!/bin/sh
test "$1" = -i && test "$2" = libvirtxml || exit 9
for disk in $(grep -o "file=.[^\\"']*v2v" "$3" | cut -c7-); do
  qemu-io -f qcow2 -c 'write -P 0x77 512k 64k' "$disk" >/dev/null || exit 8
done
echo "virt-v2v-in-place: This guest %s virtio drivers installed."
exit %d
"""


@pytest.fixture
def v2v(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a stand-in for virt-v2v-in-place is found."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return programs / convert.PROGRAM


@pytest.mark.parametrize(
    ("says", "status", "bus", "note"),
    [
        ("has", 0, "virtio", "has given its system virtio drivers"),
        ("does not have", 0, "sata", "had no virtio drivers for its system"),
        ("has", 1, "sata", "failed, and has changed nothing"),
    ],
)
def test_windows_is_converted(
    hypervisor: Libvirt, make_guest: GuestFactory, images: Path, v2v: Path, says: str, status: int, bus: str, note: str
) -> None:
    """It gets virtio if it has drivers then; a conversion that failed leaves the disks as they were."""
    v2v.write_text(V2V % (says, status))
    v2v.chmod(0o755)
    _, notes = restore(hypervisor, copy_of(WINDOWS), SAME)
    assert [n for n in notes if note in n]
    assert set(attributes(make_guest.adopt("web").xml(), "devices/disk/target", "bus")) == {bus}
    assert sorted(path.name for path in images.iterdir()) == ["web-2000.qcow2", "web-2001.qcow2"]
    for image in images.iterdir():
        converted = b"\x77" * 4096 in image.read_bytes()
        assert converted == (status == 0)


def test_windows_without_the_program(
    hypervisor: Libvirt, make_guest: GuestFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note says what to do should it not start."""
    monkeypatch.setattr(convert, "PROGRAM", "virt-v2v-in-place-which-nobody-has")
    _, notes = restore(hypervisor, copy_of(WINDOWS), SAME)
    make_guest.adopt("web")
    assert [note for note in notes if "virt-v2v-in-place-which-nobody-has is not installed on this machine" in note]


def test_a_point_does_not_choose_a_bridge_of_the_host(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """What its network is called elsewhere is not for us to obey; only the option leads to a bridge."""
    nic = Nic(mac="00:50:56:00:00:01", network="bridge:br-mgmt")
    _, notes = restore(hypervisor, copy_of(MACHINE.model_copy(update={"nics": (nic,)})), SAME)
    assert attributes(make_guest.adopt("web").xml(), "devices/interface", "type") == ["user"]
    assert [note for note in notes if "is unplugged" in note and "bridge:br-mgmt" in note]


def test_hardware_that_cannot_be_is_refused_beforehand(hypervisor: Libvirt, images: Path) -> None:
    """Not when all is written."""
    machine = MACHINE.model_copy(update={"cpus": 100_000, "cores": 1})
    with pytest.raises(Unsupported, match="web: libvirt refuses its hardware"):
        restore(hypervisor, copy_of(machine), SAME)
    assert list(images.iterdir()) == []


def test_a_boot_order_below_one_is_none(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """libvirt counts from 1."""
    disks = tuple(disk.model_copy(update={"boot_order": 0}) for disk in MACHINE.disks)
    restore(hypervisor, copy_of(MACHINE.model_copy(update={"disks": disks, "nics": ()})), SAME)
    assert attributes(make_guest.adopt("web").xml(), "devices/disk/boot", "order") == ["1"]


def test_a_machine_of_another_name_that_is_replaced_is_named(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """It is found by its UUID."""
    here = make_guest()
    machine = MACHINE.model_copy(update={"id": here.uuid})
    _, notes = restore(hypervisor, copy_of(machine), RestoreRequest(overwrite=True))
    assert [note for note in notes if f"it replaces the machine {here.name}" in note and "it was web" in note]
