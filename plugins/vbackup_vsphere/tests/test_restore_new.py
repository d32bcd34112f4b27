"""New machines: their bytes, their identity, where they are."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from pyVmomi import vim

from tests.vcsim.simulator import Simulator
from vbackup.api import DiskDescription, NoSpace, Restoration, Run
from vbackup_vsphere import document

from .restores import MIB, VCenter, contents, finish, libvirt_machine, runs, write


@pytest.fixture
def vcenter(vcsim: Simulator, tmp_path: Path):
    vcenter = VCenter(vcsim, tmp_path / "state")
    yield vcenter
    vcenter.session.close()


def test_a_new_machine_has_the_bytes_and_another_identity(vcenter: VCenter) -> None:
    machine = vcenter.describe("DC0_C0_RP0_VM0")
    data = contents(machine)
    said, notes = vcenter.restore(machine, data, name="copy")
    copy = vcenter.describe("copy")
    assert said == "the machine copy is there"
    assert notes == []
    assert vcenter.bytes_of("copy") == data[machine.disks[0].key]
    assert copy.id != machine.id
    assert copy.nics[0].mac != machine.nics[0].mac
    assert copy.nics[0].network == machine.nics[0].network
    assert (copy.cpus, copy.memory, copy.firmware) == (machine.cpus, machine.memory, machine.firmware)
    assert vcenter.journals() == []
    assert vcenter.sweep() == []
    assert "copy" in vcenter.names


def test_disks_are_not_confused(vcenter: VCenter) -> None:
    machine = libvirt_machine()
    data = contents(machine)
    vcenter.restore(machine, data)
    made = vcenter.describe("web")
    found = {vcenter.bytes_of("web", int(disk.key)) for disk in made.disks}
    assert found == set(data.values())
    boot = next(disk for disk in made.disks if disk.boot_order == 1)
    assert vcenter.bytes_of("web", int(boot.key)) == data["vdb"]


def test_firmware_variables_and_tracking_and_secure_boot_come_back(vcenter: VCenter) -> None:
    vcenter.simulator.add_vm(
        "efi", firmware="efi", secure_boot=True, tracking=True, cpus=4, cores_per_socket=2, memory_mb=64, on=False,
        disks=[{"size": MIB, "controller": "ahci"}, {"size": 2 * MIB, "controller": "nvme"}],
        nics=[{"kind": "vmxnet3", "mac": "00:50:56:11:22:33"}],
    )  # fmt: skip
    machine = vcenter.describe("efi")
    data = contents(machine)
    _, notes = vcenter.restore(machine, data, {"nvram": b"the variables"}, overwrite=True)
    made = vcenter.describe("efi")
    assert made.model_dump(exclude={"native", "disks"}) == machine.model_dump(exclude={"native", "disks"})
    assert made.secure_boot
    assert [disk.controller for disk in made.disks] == ["ahci", "nvme"]
    assert [vcenter.bytes_of("efi", int(disk.key)) for disk in made.disks] == [data[d.key] for d in machine.disks]
    assert vcenter.simulator.nvram("efi").read_bytes() == b"the variables"
    assert document.parse(made.native.text).tracking
    assert not any("variables" in note for note in notes)


def test_firmware_variables_that_cannot_be_put_back_are_a_note(vcenter: VCenter) -> None:
    vcenter.simulator.add_vm("efi", firmware="efi", on=False)
    machine = vcenter.describe("efi")
    vcenter.simulator.http_fault("/folder", method="PUT", status=503)
    _, notes = vcenter.restore(machine, contents(machine), {"nvram": b"x"}, name="copy")
    assert any("variables could not be put back" in note for note in notes)
    assert "copy" in vcenter.names


def test_a_template_is_a_template_again(vcenter: VCenter) -> None:
    vcenter.simulator.add_vm("golden", template=True)
    machine = vcenter.describe("golden")
    data = contents(machine)
    said, _ = vcenter.restore(machine, data, overwrite=True)
    assert said == "the template golden is there"
    assert document.parse(vcenter.describe("golden").native.text).template
    assert vcenter.bytes_of("golden") == data[machine.disks[0].key]


def test_a_machine_is_started_when_asked(vcenter: VCenter) -> None:
    machine = libvirt_machine()
    said, _ = vcenter.restore(machine, contents(machine), start=True)
    assert said == "the machine web is there and running"
    vm = vcenter.machine("web")
    assert vcenter.session.get(vm, "runtime.powerState")["runtime.powerState"] == "poweredOn"


def test_it_goes_where_the_options_say(vcsim: Simulator, tmp_path: Path) -> None:
    vcsim.move("DC0_C0_RP0_VM0", "restored")
    vcenter = VCenter(vcsim, tmp_path / "state", folder="/DC0/vm/restored", pool="/DC0/host/DC0_H0")
    with closing(vcenter.session):
        machine = libvirt_machine()
        vcenter.restore(machine, contents(machine))
        home = document.parse(vcenter.describe("web").native.text).home
        assert (home.folder, home.pool) == ("/DC0/vm/restored", "/DC0/host/DC0_H0/Resources")


def test_a_host_that_stands_alone(make_vcsim: Callable[..., Simulator], tmp_path: Path) -> None:
    vcenter = VCenter(make_vcsim(esx=True), tmp_path / "state", pool=None)
    with closing(vcenter.session):
        machine = libvirt_machine()
        data = contents(machine)
        vcenter.restore(machine, data)
        keys = [int(disk.key) for disk in vcenter.describe("web").disks]
        assert {vcenter.bytes_of("web", key) for key in keys} == set(data.values())


def test_disks_are_written_side_by_side(vcenter: VCenter) -> None:
    machine = libvirt_machine()
    data = contents(machine)
    both = threading.Barrier(2, timeout=60)

    def together(key: str) -> Iterator[Run]:
        both.wait()
        yield from runs(data[key])

    with vcenter.restoring(machine) as opened, ThreadPoolExecutor() as pool:
        for done in [pool.submit(opened.disks[key].write, together(key)) for key in data]:
            done.result()
        opened.finish()
    assert {vcenter.bytes_of("web", disk["key"]) for disk in vcenter.simulator.disks("web")} == set(data.values())
    assert vcenter.simulator.calls()["ImportVApp"] == 1


def test_qemu_reads_what_was_sent(vcenter: VCenter, tmp_path: Path) -> None:
    machine = libvirt_machine(disks=(DiskDescription(key="vda", size=5 * MIB),))
    data = contents(machine)
    vcenter.restore(machine, data)
    raw = tmp_path / "raw"
    raw.write_bytes(data["vda"])
    there = vcenter.simulator.disk("web")
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", raw, there], check=True)


def test_a_card_gets_the_address_back_that_vcenter_took(vcenter: VCenter) -> None:
    machine = libvirt_machine()

    def take(_: Restoration) -> None:
        hardware = vcenter.session.get(vcenter.machine("web"), "config.hardware.device")["config.hardware.device"]
        card = next(one for one in hardware if isinstance(one, vim.vm.device.VirtualEthernetCard))
        card.macAddress = "00:50:56:99:99:99"
        vcenter.reconfigure("web", deviceChange=[vim.vm.device.VirtualDeviceSpec(operation="edit", device=card)])
        assert vcenter.describe("web").nics[0].mac == "00:50:56:99:99:99"

    vcenter.attempt(machine, write(contents(machine)), take, finish)
    assert vcenter.describe("web").nics[0].mac == machine.nics[0].mac


def test_a_disk_may_hold_less_than_it_says_but_not_more_than_there_is_room_for(vcenter: VCenter) -> None:
    machine = libvirt_machine()
    vcenter.simulator.datastore(summary__freeSpace=4 * MIB)
    data = {"vda": bytes(3 * MIB), "vdb": b"x" * 2 * MIB}
    _, notes = vcenter.restore(machine, data)
    assert any("has only" in note for note in notes)
    with pytest.raises(NoSpace, match="LocalDS_0"):
        vcenter.attempt(machine, write({"vda": b"y" * 3 * MIB, "vdb": b"x" * 2 * MIB}), name="copy")
    assert "copy" not in vcenter.names
