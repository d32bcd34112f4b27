"""A machine that takes the place of the one that it was."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.vcsim.simulator import Simulator
from vbackup.api import AccessDenied, AlreadyExists, Busy, MachineDescription, Unavailable, Unsupported
from vbackup_undo.journal import Journals
from vbackup_vsphere import settings
from vbackup_vsphere.journal import CaptureEntry

from .restores import MIB, VCenter, contents, finish, libvirt_machine, write

NAME = "DC0_C0_RP0_VM0"


@pytest.fixture
def vcenter(vcsim: Simulator, tmp_path: Path):
    vcenter = VCenter(vcsim, tmp_path / "state")
    vcenter.switch(NAME, on=False)
    yield vcenter
    vcenter.session.close()


def test_the_new_one_is_the_old_one(vcenter: VCenter) -> None:
    machine = vcenter.describe(NAME)
    data, before, old = contents(machine), vcenter.names, vcenter.machine(NAME)
    said, notes = vcenter.restore(machine, data, overwrite=True)
    made = vcenter.describe(NAME)
    assert said == f"the machine {NAME} is there"
    assert any("tags" in note for note in notes)
    assert vcenter.names == before
    assert vcenter.machine(NAME) != old
    assert (made.id, made.nics) == (machine.id, machine.nics)
    assert vcenter.bytes_of(NAME) == data[machine.disks[0].key]
    assert vcenter.journals() == []


def test_it_keeps_the_name_that_it_has_now(vcenter: VCenter) -> None:
    machine = vcenter.describe(NAME)
    vcenter.reconfigure(NAME, name="renamed")
    _, notes = vcenter.restore(machine, contents(machine), overwrite=True)
    assert "renamed" in vcenter.names
    assert NAME not in vcenter.names
    assert any("keeps its present name renamed" in note for note in notes)


def test_nothing_is_replaced_unasked(vcenter: VCenter) -> None:
    machine = vcenter.describe(NAME)
    with pytest.raises(AlreadyExists, match=NAME), vcenter.restoring(machine):
        pass


def test_a_machine_that_is_being_captured_stays(vcenter: VCenter, tmp_path: Path) -> None:
    machine = vcenter.describe(NAME)
    captures = Journals(tmp_path / "state", "capture", CaptureEntry)
    with captures.open(machine.id), pytest.raises(Busy, match="capture"), vcenter.restoring(machine, overwrite=True):
        pass


def test_a_machine_that_runs_stays(vcenter: VCenter) -> None:
    machine = vcenter.describe(NAME)
    vcenter.switch(NAME, on=True)
    with pytest.raises(Busy, match="is running"), vcenter.restoring(machine, overwrite=True):
        pass


def test_snapshots_of_others_are_not_lost(vcenter: VCenter) -> None:
    machine = vcenter.describe(NAME)
    vm = vcenter.machine(NAME)
    vcenter.session.wait(
        vm.CreateSnapshot_Task(name="before the update", description="", memory=False, quiesce=False), "snapshot"
    )
    with pytest.raises(AlreadyExists, match="before the update"), vcenter.restoring(machine, overwrite=True):
        pass


def test_a_machine_started_meanwhile_stays(vcenter: VCenter) -> None:
    machine = vcenter.describe(NAME)
    before, old = vcenter.names, vcenter.machine(NAME)
    start = lambda _: vcenter.switch(NAME, on=True)  # noqa: E731
    with pytest.raises(Busy, match="is running"):
        vcenter.attempt(machine, write(contents(machine)), start, finish, overwrite=True)
    assert vcenter.names == before
    assert vcenter.machine(NAME) == old
    assert vcenter.journals() == []


def test_a_last_step_that_fails_gives_the_old_one_its_place_back(vcenter: VCenter) -> None:
    machine = vcenter.describe(NAME)
    before, old, was = vcenter.names, vcenter.machine(NAME), vcenter.bytes_of(NAME)
    break_it = lambda _: _fail_after_renaming(vcenter)  # noqa: E731
    with pytest.raises(Unavailable):
        vcenter.attempt(machine, write(contents(machine)), break_it, finish, overwrite=True)
    assert vcenter.names == before
    assert vcenter.machine(NAME) == old
    assert vcenter.describe(NAME) == machine
    assert vcenter.bytes_of(NAME) == was


def _fail_after_renaming(vcenter: VCenter) -> None:
    """Let the second ReconfigVM_Task from now on fail: the one that would complete the new machine."""
    real = vcenter.session.call
    seen = []

    def call(what, work, **options):
        if "completing it" in what and not seen:
            seen.append(what)
            vcenter.simulator.fault("ReconfigVM_Task", "HostNotReachable")
        return real(what, work, **options)

    vcenter.session.call = call


def with_another_disk(vcenter: VCenter, controller: str) -> tuple[MachineDescription, bytes]:
    """Return a machine as a restore point has it, which has got an independent disk since, and that disk's bytes."""
    vcenter.simulator.add_vm("db", disks=[{"size": MIB, "controller": "pvscsi"}], on=False)
    machine = vcenter.describe("db")
    key = vcenter.simulator.add_disk(
        "db", {"size": 2 * MIB, "controller": controller, "mode": "independent_persistent"}
    )
    vcenter.simulator.guest_write("db", key, 4096, b"never in a backup")
    return machine, vcenter.bytes_of("db", key)


def test_a_disk_that_is_not_in_the_point_stays_with_the_machine(vcenter: VCenter) -> None:
    machine, other = with_another_disk(vcenter, "pvscsi")
    data, before = contents(machine), vcenter.names
    _, notes = vcenter.restore(machine, data, overwrite=True)
    assert any("stay as they are now: scsi0:" in note for note in notes)
    disks = vcenter.simulator.disks("db")
    assert [vcenter.bytes_of("db", disk["key"]) for disk in disks] == [*data.values(), other]
    assert vcenter.names == before
    assert vcenter.journals() == []


def test_where_it_cannot_be_plugged_in_the_old_one_stays_beside(vcenter: VCenter) -> None:
    machine, other = with_another_disk(vcenter, "nvme")
    old = vcenter.machine("db")
    _, notes = vcenter.restore(machine, contents(machine), overwrite=True)
    assert any("the old machine stays" in note for note in notes)
    stays = next(name for name in vcenter.names if name.startswith("db-replaced-"))
    assert vcenter.machine(stays) == old
    assert other in [vcenter.bytes_of(stays, disk["key"]) for disk in vcenter.simulator.disks(stays)]
    assert vcenter.describe("db").id == machine.id != vcenter.describe(stays).id


def test_where_the_host_does_not_take_it_the_old_one_stays_beside(vcenter: VCenter) -> None:
    machine, other = with_another_disk(vcenter, "pvscsi")
    break_it = lambda _: vcenter.simulator.fault("ReconfigVM_Task", "FileLocked", skip=1)  # noqa: E731
    vcenter.attempt(machine, write(contents(machine)), break_it, finish, overwrite=True)
    stays = next(name for name in vcenter.names if name.startswith("db-replaced-"))
    assert other in [vcenter.bytes_of(stays, disk["key"]) for disk in vcenter.simulator.disks(stays)]
    assert vcenter.describe("db").id == machine.id
    assert vcenter.journals() == []


def test_a_machine_that_is_gone_comes_back_as_it_was(vcenter: VCenter) -> None:
    machine = vcenter.describe(NAME)
    vm = vcenter.machine(NAME)
    vcenter.session.wait(vm.Destroy_Task(), "removing it")
    vcenter.restore(machine, contents(machine))
    made = vcenter.describe(NAME)
    assert (made.id, made.nics, made.memory) == (machine.id, machine.nics, machine.memory)


def test_a_libvirt_machine_takes_the_place_of_what_was_restored_before(vcenter: VCenter) -> None:
    machine = libvirt_machine()
    vcenter.restore(machine, contents(machine, seed=1))
    again, before = contents(machine, seed=2), vcenter.names
    vcenter.restore(machine, again, overwrite=True)
    made = vcenter.describe("web")
    assert {vcenter.bytes_of("web", int(disk.key)) for disk in made.disks} == set(again.values())
    assert vcenter.names == before


def test_the_mark_is_gone(vcenter: VCenter) -> None:
    machine = vcenter.describe(NAME)
    vcenter.restore(machine, contents(machine), overwrite=True)
    options = vcenter.session.get(vcenter.machine(NAME), "config.extraConfig")["config.extraConfig"]
    assert [one.value for one in options if one.key == settings.MARK][-1:] in ([], [""])


def test_through_vddk_too_the_old_one_is_not_written_to(vcsim: Simulator, tmp_path: Path) -> None:
    vcenter = VCenter(vcsim, tmp_path / "vddk", vddk=vcsim.vddk())
    with closing(vcenter.session):
        vcenter.switch(NAME, on=False)
        machine, before, old = vcenter.describe(NAME), vcenter.names, vcenter.machine(NAME)
        was, data = vcenter.bytes_of(NAME), contents(machine)
        with vcenter.restoring(machine, overwrite=True) as opened:
            write(data)(opened)
            assert vcenter.bytes_of(NAME) == was
            opened.finish()
        assert vcenter.bytes_of(NAME) == data[machine.disks[0].key]
        assert (vcenter.names, vcenter.describe(NAME).id) == (before, machine.id)
        assert vcenter.machine(NAME) != old
        assert "ImportVApp" not in vcsim.calls()
        assert vcsim.vddk_log()
        assert vcenter.journals() == []


def test_vddk_that_fails_leaves_the_old_one(vcsim: Simulator, tmp_path: Path) -> None:
    vcenter = VCenter(vcsim, tmp_path / "vddk", vddk=vcsim.vddk())
    with closing(vcenter.session):
        vcenter.switch(NAME, on=False)
        machine, before = vcenter.describe(NAME), vcenter.names
        vcsim.http_fault("/vddk", status=500)
        with pytest.raises((Unavailable, Unsupported)):
            vcenter.attempt(machine, write(contents(machine)), finish, overwrite=True)
        assert vcenter.names == before
        assert vcenter.describe(NAME) == machine
        assert vcenter.journals() == []


def test_a_vddk_that_is_not_there_is_told(vcsim: Simulator, tmp_path: Path) -> None:
    vcenter = VCenter(vcsim, tmp_path / "vddk", vddk={"libdir": str(tmp_path)})
    with closing(vcenter.session):
        vcenter.switch(NAME, on=False)
        machine = vcenter.describe(NAME)
        _, notes = vcenter.restore(machine, contents(machine), overwrite=True)
        assert any("not written through VDDK" in note for note in notes)
        assert vcsim.calls()["ImportVApp"] == 1


def test_an_old_one_that_cannot_be_removed_is_a_note(vcenter: VCenter) -> None:
    machine = vcenter.describe(NAME)
    data = contents(machine)
    vcenter.simulator.fault("Destroy_Task", "HostNotReachable", times=2)
    said, notes = vcenter.restore(machine, data, overwrite=True)
    assert said == f"the machine {NAME} is there"
    assert any(f"stays as {NAME}-replaced-" in note for note in notes)
    assert vcenter.bytes_of(NAME) == data[machine.disks[0].key]
    assert vcenter.sweep() == [f"finished a restore of {NAME}"]
    assert not [name for name in vcenter.names if "replaced" in name]


@pytest.mark.parametrize(
    "privilege",
    ["VirtualMachine.Config.Rename", "VirtualMachine.Inventory.Delete", "VirtualMachine.Config.AdvancedConfig"],
)
def test_a_privilege_that_is_needed_at_the_end_is_missed_at_the_start(vcenter: VCenter, privilege: str) -> None:
    machine, before, old = vcenter.describe(NAME), vcenter.names, vcenter.machine(NAME)
    vcenter.simulator.deny(privilege)
    with pytest.raises(AccessDenied, match=privilege), vcenter.restoring(machine, overwrite=True):
        pass
    assert "ImportVApp" not in vcenter.simulator.calls()
    assert vcenter.names == before
    assert vcenter.machine(NAME) == old
    assert vcenter.journals() == []
