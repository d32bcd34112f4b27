"""The memory of a machine in a restore point: kept like a disk, and restored as what it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import back_up, guest, noise, repository
from vbackup.api import CheckOrder, MachineDescription, PluginError, Point, RestoreRequest, Target
from vbackup.engine.backup import MEMORY_IN_FULL
from vbackup.engine.replicate import Replicate
from vbackup.engine.restore import Plan, Restore
from vbackup.testing.hypervisors import FakeDisk, FakeHypervisor, FakeMachine
from vbackup.testing.transports import MemoryTransport

MIB = 1 << 20


@pytest.fixture
def lab() -> FakeHypervisor:
    lab = FakeHypervisor()
    guest(lab, "web", noise(MIB, 1)).memory = FakeDisk(bytearray(noise(MIB + 4711, 2)))
    return lab


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    made = repository(MemoryTransport(), tmp_path)
    made.init()
    yield made
    made.close()


def restore(target: Target, place: Any, told: list[str] | None = None) -> Restore:
    announce = (lambda notes: None) if told is None else told.extend
    return Restore(target, place, threading.Event(), lambda key, done, size: None, announce)


def again(target: Target, point: Point, *, memory: bool = True) -> FakeMachine:
    place = FakeHypervisor()
    restore(target, place).run(point, RestoreRequest(name="again"), memory=memory)
    return place.guests["again"]


def test_the_memory_is_kept_and_comes_back(lab: FakeHypervisor, target: Target) -> None:
    point = back_up(target, lab, "web", memory=True)
    assert [(disk.key, disk.is_memory) for disk in point.disks] == [("vda", False), ("memory", True)]
    assert target.points() == [point]
    machine = again(target, point)
    assert machine.memory is not None
    assert machine.memory.data == lab.guests["web"].memory.data  # type: ignore[union-attr]
    assert list(machine.disks) == ["vda"]


def test_without_memory_it_starts_afresh(lab: FakeHypervisor, target: Target) -> None:
    machine = again(target, back_up(target, lab, "web", memory=True), memory=False)
    assert machine.memory is None
    assert list(machine.disks) == ["vda"]


def test_nothing_is_kept_unasked_or_of_a_machine_that_is_off(lab: FakeHypervisor, target: Target) -> None:
    assert [disk.key for disk in back_up(target, lab, "web").disks] == ["vda"]
    lab.guests["web"].memory = None
    assert [disk.key for disk in back_up(target, lab, "web", memory=True).disks] == ["vda"]


def test_the_next_memory_is_read_in_full_and_that_is_no_warning(lab: FakeHypervisor, target: Target) -> None:
    back_up(target, lab, "web", memory=True)
    lab.guests["web"].memory = FakeDisk(bytearray(noise(2 * MIB, 3)))
    second = back_up(target, lab, "web", memory=True)
    assert second.warnings == ()
    assert second.disks[1].full_reason == MEMORY_IN_FULL
    assert second.disks[1].read == 2 * MIB
    assert again(target, second).memory.data == noise(2 * MIB, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize("key", ["memory", "ram"])
def test_a_key_that_is_not_the_memorys_is_a_fault_of_the_plugin(
    lab: FakeHypervisor, target: Target, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    if key == "memory":
        lab.guests["web"].disks["memory"] = FakeDisk(bytearray(4096))
    original = lab.capture

    @contextmanager
    def capture(*args: Any) -> Iterator[Any]:
        with original(*args) as made:
            assert made.memory is not None
            made.memory.key = key
            yield made

    monkeypatch.setattr(lab, "capture", capture)
    with pytest.raises(PluginError, match=f"web: .*key '{key}' is not the memory's"):
        back_up(target, lab, "web", memory=True)
    assert target.points() == []


class Elsewhere(FakeHypervisor):
    """One of another type."""

    name = "elsewhere"


def test_the_memory_goes_to_no_hypervisor_of_another_type(lab: FakeHypervisor, target: Target) -> None:
    point = back_up(target, lab, "web", memory=True)
    place, told = Elsewhere(), list[str]()
    done = restore(target, place, told).run(point, RestoreRequest())
    (note,) = done.notes
    assert (
        note == "the memory is left out, as only a hypervisor of type fake can go on from it: the machine starts afresh"
    )
    assert told == [note]
    assert place.guests["web"].memory is None


class Choosy(FakeHypervisor):
    """Leaves out what it is told to leave out, and says so."""

    def __init__(self, leaves_out: str) -> None:
        super().__init__()
        self._leaves_out = leaves_out
        self.finished = False

    @contextmanager
    def restore(self, machine: MachineDescription, disks: Any, files: Any, request: Any) -> Iterator[Any]:
        kept = [disk for disk in disks if disk.key != self._leaves_out]
        with super().restore(machine, kept, files, request) as restoration:
            restoration.notes.append(f"{self._leaves_out} is not restored")
            yield restoration


def test_a_hypervisor_may_leave_out_the_memory_and_nothing_else(lab: FakeHypervisor, target: Target) -> None:
    point = back_up(target, lab, "web", memory=True)
    place = Choosy("memory")
    done = restore(target, place).run(point, RestoreRequest())
    assert done.notes == ("memory is not restored",)
    assert place.guests["web"].disks["vda"].data == lab.guests["web"].disks["vda"].data
    with pytest.raises(PluginError, match="takes no disk vda of web"):
        restore(target, Choosy("vda")).run(point, RestoreRequest())


def test_notes_are_announced_before_a_byte_is_read(lab: FakeHypervisor, target: Target) -> None:
    point = back_up(target, lab, "web", memory=True)
    read: list[str] = []
    told: list[tuple[str, ...]] = []

    def announce(notes: Any) -> None:
        assert read == []
        told.append(tuple(notes))

    work = Restore(target, Choosy("memory"), threading.Event(), lambda key, done, size: read.append(key), announce)
    work.run(point, RestoreRequest())
    assert told == [("memory is not restored",)]
    assert set(read) == {"vda"}


def test_a_rehearsal_makes_nothing(lab: FakeHypervisor, target: Target) -> None:
    point = back_up(target, lab, "web", memory=True)
    place, told = Choosy("memory"), list[str]()
    plan = restore(target, place, told).rehearse(point, RestoreRequest(name="copy"))
    assert isinstance(plan, Plan)
    assert [disk.key for disk in plan.disks] == ["vda"]
    assert plan.notes == ("memory is not restored",)
    assert told == ["memory is not restored"]
    assert place.guests == {}


def test_it_is_verified_checked_copied_and_pruned_like_a_disk(
    lab: FakeHypervisor, target: Target, tmp_path: Path
) -> None:
    point = back_up(target, lab, "web", memory=True)
    checked: list[int] = []
    assert target.verify([point], checked.append) == []
    assert sum(checked) == sum(disk.size for disk in point.disks)
    assert not target.check(CheckOrder(read_data=True), lambda size: None).damage
    other = repository(MemoryTransport(), tmp_path / "other")
    other.init()
    with other.writer() as writer:
        made = Replicate(target, other, writer, threading.Event(), lambda progress: None).run(point, None).point
    assert [(disk.key, disk.is_memory) for disk in other.points()[0].disks] == [("vda", False), ("memory", True)]
    assert again(other, made).memory.data == lab.guests["web"].memory.data  # type: ignore[union-attr]
    other.close()
    target.delete([point])
    assert target.points() == []
