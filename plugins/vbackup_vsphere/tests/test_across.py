"""Machines of libvirt in vSphere: devices that start anywhere, and what cannot be carried is said before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.vcsim.simulator import Simulator
from vbackup.api import DiskDescription, Guest, MachineDescription, Unsupported
from vbackup_vsphere import describe, foreign

from .restores import LIBVIRT_ID, MIB, VCenter, contents, libvirt_machine, wanted


@pytest.fixture
def vcenter(vcsim: Simulator, tmp_path: Path):
    vcenter = VCenter(vcsim, tmp_path / "state")
    yield vcenter
    vcenter.session.close()


def shape(machine: MachineDescription) -> dict[str, Any]:
    """Return what a way across must not change."""
    order = sorted(
        [(one.boot_order, "disk", one.size) for one in machine.disks if one.boot_order]
        + [(one.boot_order, "nic", one.mac) for one in machine.nics if one.boot_order]
    )
    return {
        "same": machine.model_dump(
            include={
                "name", "id", "arch", "cpus", "cores", "memory", "firmware", "secure_boot", "clock", "guest", "drivers"
            }
        ),
        "disks": sorted(one.size for one in machine.disks),
        "nics": [(one.mac, one.network, one.connected) for one in machine.nics],
        "order": [one[1:] for one in order],
    }  # fmt: skip


BIOS = libvirt_machine(drivers=("virtio",))
UEFI = libvirt_machine(
    firmware="uefi",
    secure_boot=True,
    guest="windows",
    clock="localtime",
    drivers=("virtio", "vmware"),
    nics=(
        {"mac": "52:54:00:12:34:56", "model": "virtio", "network": "VM Network", "boot_order": 2, "connected": False},
        {"mac": "52:54:00:12:34:57", "model": "e1000e", "network": "DC0_DVPG0"},
    ),
)


@pytest.mark.parametrize("machine", [BIOS, UEFI], ids=["bios", "uefi"])
def test_there_and_described_again_it_is_the_same_machine(vcenter: VCenter, machine: MachineDescription) -> None:
    vcenter.restore(machine, contents(machine))
    assert shape(vcenter.describe("web")) == shape(machine)


def test_a_machine_beside_has_an_identity_of_its_own(vcenter: VCenter) -> None:
    vcenter.restore(BIOS, contents(BIOS), name="copy")
    copy = vcenter.describe("copy")
    assert copy.id != LIBVIRT_ID
    assert copy.nics[0].mac != BIOS.nics[0].mac
    assert copy.drivers == ("virtio",)


@pytest.mark.parametrize(
    ("drivers", "disk", "nic"),
    [((), "ahci", "e1000e"), (("virtio",), "ahci", "e1000e"), (("vmware",), "pvscsi", "vmxnet3")],
)
def test_devices_start_anywhere_unless_the_guest_knows_vmwares(drivers: Any, disk: str, nic: str) -> None:
    machine = libvirt_machine(drivers=drivers)
    found = describe.description("web", foreign.convert(machine, wanted(machine), {}).config)
    assert {one.controller for one in found.disks} == {disk}
    assert {one.model for one in found.nics} == {nic}


def test_a_way_there_and_back_again_keeps_what_each_side_knows() -> None:
    machine = libvirt_machine(drivers=("virtio", "vmware"))
    found = describe.description("web", foreign.convert(machine, wanted(machine), {}).config)
    assert found.drivers == ("virtio", "vmware")


def test_the_disk_that_starts_the_machine_comes_first() -> None:
    machine = libvirt_machine()
    found = foreign.convert(machine, wanted(machine), {})
    first = min(found.config.disks, key=lambda disk: disk.unit)
    assert first.key == found.keys["vdb"]


def test_many_disks_pass_over_the_controllers_own_unit() -> None:
    disks = tuple(DiskDescription(key=f"vd{chr(97 + i)}", size=MIB) for i in range(20))
    machine = libvirt_machine(disks=disks, drivers=("vmware",))
    config = foreign.convert(machine, wanted(machine), {}).config
    places = [(disk.controller, disk.unit) for disk in config.disks]
    assert len(set(places)) == 20
    assert all(unit != 7 for _, unit in places)
    assert [one.number for one in config.controllers] == [0, 1]


def test_more_disks_than_there_are_places() -> None:
    disks = tuple(DiskDescription(key=f"d{i}", size=MIB) for i in range(121))
    machine = libvirt_machine(disks=disks)
    with pytest.raises(Unsupported, match="121"):
        foreign.convert(machine, wanted(machine), {})


def test_another_processor() -> None:
    machine = libvirt_machine(arch="aarch64")
    with pytest.raises(Unsupported, match="aarch64"):
        foreign.convert(machine, wanted(machine), {})


@pytest.mark.parametrize(
    ("changes", "files", "said"),
    [
        ({"tpm": True}, {}, "no TPM"),
        ({"firmware": "uefi"}, {}, "BOOTX64.EFI"),
        ({"firmware": "uefi", "secure_boot": True}, {}, "Secure Boot"),
        ({"clock": "localtime"}, {}, "clock"),
        ({"guest": Guest.WINDOWS, "clock": "localtime"}, {}, "storahci"),
        ({"memory": 513 * MIB}, {}, "516 MiB"),
        ({"memory": 0}, {}, "2048 MiB"),
        ({"cpus": 3, "cores": 2}, {}, "sockets of one core"),
        ({"disks": (DiskDescription(key="vda", size=MIB + 512),)}, {}, "512 bytes larger"),
        ({}, {}, "disk vda, vdb: on ahci"),
        ({}, {}, "network cards are e1000e now; they were virtio"),
        ({}, {"other": b""}, "left out: other"),
    ],
)
def test_what_cannot_be_carried_is_said_before_a_byte(
    vcenter: VCenter, changes: dict[str, Any], files: dict[str, bytes], said: str
) -> None:
    with vcenter.restoring(libvirt_machine(**changes), files) as opened:
        assert any(said in note for note in opened.notes), opened.notes
    assert "ImportVApp" not in vcenter.simulator.calls()


def test_an_odd_size_is_rounded_up_with_zeros(vcenter: VCenter) -> None:
    machine = libvirt_machine(disks=(DiskDescription(key="vda", size=MIB + 512, bus="sata"),))
    data = contents(machine)
    vcenter.restore(machine, data)
    assert vcenter.bytes_of("web") == data["vda"] + bytes(512)


def test_a_disk_that_was_not_captured(vcenter: VCenter) -> None:
    machine = libvirt_machine()
    less = machine.model_copy(update={"disks": machine.disks[:1]})
    found = foreign.convert(machine, wanted(less), {})
    assert len(found.config.disks) == 1
