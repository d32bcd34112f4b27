"""What the contract does not know of: where things go, what is written beside them, and dying in the middle."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from machine import BLOCK, Lab, QemuMachine, Restored, make
from vbackup_qmp.hypervisor import QmpHypervisor

from vbackup.api import (
    AlreadyExists,
    Busy,
    ConfigError,
    MachineDescription,
    NoSpace,
    NotFound,
    RestoreDisk,
    RestoreRequest,
    Unsupported,
)
from vbackup.testing.crash import FILE_OPERATIONS, processes, ticking
from vbackup.testing.hypervisor_contract import Saved, save

OWNER = "0123456789abcdef" * 2


@pytest.fixture
def saved(hypervisor: QmpHypervisor, guest: QemuMachine) -> Saved:
    """A restore point of the machine, which is off now, and has changed."""
    point = save(hypervisor, guest)
    guest.stop()
    for disk in guest.disks:
        guest.write(disk, 0, b"\xee" * BLOCK)
    return point


def test_dying_at_every_step(lab: Lab, guest: QemuMachine, hypervisor: QmpHypervisor, saved: Saved) -> None:
    """After a sweep the machine has all its disks of the restore point, or all those from before."""
    before = {key: guest.read(key) for key in guest.disks}

    def action(tick: Callable[..., None]) -> None:
        ticking(os, FILE_OPERATIONS, tick)
        saved.restore(hypervisor, RestoreRequest(overwrite=True))

    seen = []
    for death in processes(action):
        hypervisor.sweep(OWNER)
        assert lab.leftovers() == [], death
        now = {key: guest.read(key) for key in guest.disks}
        assert now in (before, saved.disks), death
        seen.append(now == before)
    assert seen == sorted(seen, reverse=True), "from one death on the new ones are there"
    assert (seen[0], seen[-1]) == (True, False)


def test_what_was_written_to_since_is_not_replaced(
    lab: Lab, guest: QemuMachine, hypervisor: QmpHypervisor, saved: Saved
) -> None:
    """Somebody started the machine after a restore had died between two disks: it is not finished any more."""

    def action(tick: Callable[..., None]) -> None:
        ticking(os, ["replace"], tick)
        saved.restore(hypervisor, RestoreRequest(overwrite=True))

    deaths = processes(action)
    died = next(deaths)
    assert "before replace" in died.what
    guest.write("data", BLOCK, b"\xcc" * BLOCK)
    now = {key: guest.read(key) for key in guest.disks}
    told = hypervisor.sweep(OWNER)
    assert f"left {guest.images['data'].path} as it is, for it was written to after the restore" in told
    assert {key: guest.read(key) for key in guest.disks} == now
    assert lab.leftovers() == []
    deaths.close()


def test_beside_the_disks_is_what_it_was(lab: Lab, guest: QemuMachine, hypervisor: QmpHypervisor, saved: Saved) -> None:
    """The command line of the machine, with the new images in it: QEMU takes it."""
    said = saved.restore(hypervisor, RestoreRequest(name="copy"))
    directory = lab.directory / "storage" / "copy"
    assert said == f"copy: {directory / 'root.qcow2'}, {directory / 'data.raw'}"
    document = json.loads((directory / "machine.json").read_text())
    command = document["command"]
    assert command[0] == "qemu-system-x86_64"
    assert str(guest.images["root"].path) not in " ".join(command)
    nodes = [json.loads(command[at + 1]) for at, word in enumerate(command) if word == "-blockdev"]
    assert [node["file"]["filename"] for node in nodes] == [str(directory / "root.qcow2"), str(directory / "data.raw")]
    assert document["was"]["memory"] == 16 << 20


def test_a_machine_of_another_hypervisor(lab: Lab, hypervisor: QmpHypervisor) -> None:
    """It gets a command that starts it, and a note that says so."""
    machine = MachineDescription(
        name="far", id="1", cpus=2, memory=64 << 20, disks=({"key": "vda", "size": 1 << 20, "bus": "scsi"},)
    )
    wanted = [RestoreDisk("vda", 1 << 20, "vmdk")]
    with hypervisor.restore(machine, wanted, {"nvram": b"x"}, RestoreRequest()) as restoration:
        restoration.disks["vda"].write([(0, 4096, b"f" * 4096), (4096, (1 << 20) - 4096, None)])
        assert any("made up" in note for note in restoration.notes)
        assert any("nvram was left out" in note for note in restoration.notes)
        restoration.finish()
    there = Restored(lab.directory / "storage" / "far")
    assert there.read("vda") == (b"f" * 4096).ljust(1 << 20, b"\0")
    command = json.loads((there.directory / "machine.json").read_text())["command"]
    process = subprocess.Popen([*command, "-S", "-display", "none", "-qmp", "stdio"], stdin=-1, stdout=-1)
    said, _ = process.communicate(b'{"execute": "qmp_capabilities"} {"execute": "quit"}\n', timeout=60)
    assert (process.returncode, b"QMP" in said) == (0, True)


def test_a_new_directory_over_an_old_one(lab: Lab, hypervisor: QmpHypervisor, saved: Saved) -> None:
    """Only if asked for."""
    saved.restore(hypervisor, RestoreRequest(name="copy"))
    with pytest.raises(AlreadyExists, match="storage/copy exists"):
        saved.restore(hypervisor, RestoreRequest(name="copy"))
    saved.restore(hypervisor, RestoreRequest(name="copy", overwrite=True, format="raw"))
    assert Restored(lab.directory / "storage" / "copy").read("root") == saved.disks["root"]


def test_an_image_that_another_qemu_has_open(lab: Lab, guest: QemuMachine, saved: Saved) -> None:
    """QEMU's lock is heeded, whatever the configuration says of sockets."""
    machines = {"web": {**guest.options, "socket": str(lab.directory / "elsewhere")}}
    hypervisor = make({**lab.options, "machines": machines}, lab.state)
    guest.start()
    with pytest.raises(Busy, match="lock"):
        saved.restore(hypervisor, RestoreRequest(overwrite=True))
    assert lab.leftovers() == []


def test_started_while_it_is_restored(lab: Lab, guest: QemuMachine, hypervisor: QmpHypervisor, saved: Saved) -> None:
    """Nothing is replaced below a machine that runs."""
    with hypervisor.restore(saved.machine, saved.wanted, {}, RestoreRequest(overwrite=True)) as restoration:
        saved.write(restoration.disks)
        guest.start()
        with pytest.raises(Busy, match="is running"):
            restoration.finish()
    assert guest.read("root")[:BLOCK] == b"\xee" * BLOCK
    assert lab.leftovers() == []


def test_without_a_place(lab: Lab, hypervisor: QmpHypervisor, saved: Saved) -> None:
    """What cannot be is refused before a byte, and says what to do."""
    bare = make({"machines": {}, "scratch": lab.options["scratch"]}, lab.state)
    x = lab.directory / "x"
    refused = [
        (bare, RestoreRequest(), Unsupported, "`storage`"),
        (bare, RestoreRequest(start=True), Unsupported, "started by whoever"),
        (hypervisor, RestoreRequest(disks={"vdz": x}), NotFound, "no disk vdz"),
        (hypervisor, RestoreRequest(disks={"root": x / "x"}), NotFound, "no directory"),
        (hypervisor, RestoreRequest(disks={"root": x, "data": x}), ConfigError, "one file"),
        (hypervisor, RestoreRequest(disks={"root": lab.directory}, overwrite=True), AlreadyExists, "neither"),
        (hypervisor, RestoreRequest(name="n", format="vmdk"), Unsupported, "vmdk"),
        (hypervisor, RestoreRequest(name="web"), AlreadyExists, "web"),
    ]
    for where, request, kind, said in refused:
        with pytest.raises(kind, match=said), where.restore(saved.machine, saved.wanted, {}, request):
            pass
    assert lab.leftovers() == []


def test_a_disk_that_the_configuration_does_not_know(lab: Lab, guest: QemuMachine, saved: Saved) -> None:
    """It has no place then; and one that the point does not have stays, with a note."""
    of_one = {"web": {**guest.options, "disks": {"root": guest.options["disks"]["root"]}}}
    one = make({**lab.options, "machines": of_one}, lab.state)
    with pytest.raises(Unsupported, match="where its disk data is"):
        saved.restore(one, RestoreRequest(overwrite=True))
    half = Saved(saved.machine, {"root": saved.disks["root"]}, {})
    request = RestoreRequest(overwrite=True)
    with lab.opens().restore(half.machine, half.wanted, {}, request) as restoration:
        assert restoration.notes == ["data stays as it is: the restore point does not have it"]


def test_the_memory_to_a_file(hypervisor: QmpHypervisor, short: Path) -> None:
    """Byte for byte, although no disk has such a size."""
    machine = MachineDescription(name="far", id="1")
    wanted = [RestoreDisk("memory", 1001, "raw", is_memory=True)]
    request = RestoreRequest(disks={"memory": short / "memory"}, format="qcow2")
    with hypervisor.restore(machine, wanted, {}, request) as restoration:
        restoration.disks["memory"].write([(0, 1000, b"m" * 1000), (1000, 1, None)])
        restoration.finish()
    assert (short / "memory").read_bytes() == b"m" * 1000 + b"\0"


def test_onto_a_block_device(hypervisor: QmpHypervisor, device: Path) -> None:
    """All of the disk is written, zeros too; what is beyond stays. What does not fit is refused."""
    machine = MachineDescription(name="far", id="1")
    request = RestoreRequest(disks={"vda": device}, overwrite=True)
    with hypervisor.restore(machine, [RestoreDisk("vda", 1 << 20, "qcow2")], {}, request) as restoration:
        restoration.disks["vda"].write([(0, 512, b"d" * 512), (512, (1 << 20) - 512, None)])
        restoration.finish()
    assert device.read_bytes() == (b"d" * 512).ljust(1 << 20, b"\0") + b"\xdd" * (1 << 20)
    as_qcow2 = RestoreRequest(disks={"vda": device}, overwrite=True, format="qcow2")
    for size, wanted, kind in ((4 << 20, request, NoSpace), (1 << 20, as_qcow2, Unsupported)):
        with pytest.raises(kind), hypervisor.restore(machine, [RestoreDisk("vda", size, "raw")], {}, wanted):
            pass


def test_a_link_to_an_image(lab: Lab, hypervisor: QmpHypervisor, saved: Saved) -> None:
    """What it leads to is replaced, not the link."""
    place, link = lab.directory / "place", lab.directory / "link"
    place.touch()
    link.symlink_to(place)
    one = Saved(saved.machine, {"root": saved.disks["root"]}, {})
    one.restore(hypervisor, RestoreRequest(disks={"root": link}, format="raw", overwrite=True))
    assert link.is_symlink()
    assert place.read_bytes() == saved.disks["root"]
