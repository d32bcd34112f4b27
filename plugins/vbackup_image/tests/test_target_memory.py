"""A machine's memory in a target of images: a file of its own beside the disks, of whatever size."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from vbackup.api import HypervisorContext, Quiesce, RestoreRequest
from vbackup.engine.backup import BackUp
from vbackup.engine.restore import Restore
from vbackup.testing.hypervisors import FakeDisk, FakeHypervisor
from vbackup_image.plugin import ImageHypervisor

from .plain import FORMS, guest, image, noise, target_at

MIB = 1 << 20


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [MIB, MIB + 4711])
def test_the_memory_is_kept_beside_the_disks(tmp_path: Path, form: str, size: int) -> None:
    (tmp_path / "root").mkdir()
    target = target_at(tmp_path / "root", **FORMS[form])
    target.init()
    lab = FakeHypervisor()
    web = guest(lab, "web", noise(MIB, 1))
    previous = None
    for number in range(3):
        web.memory = FakeDisk(bytearray(noise(size, number)))
        with target.writer() as writer:
            work = BackUp(
                lab, "lab", "nightly", target.id, writer, Quiesce.NO, Event(), lambda progress: None, memory=True
            )
            previous = work.run(lab.machines()[0], previous).point
        place = FakeHypervisor()
        Restore(target, place, Event(), lambda key, done, size: None).run(previous, RestoreRequest(name="again"))
        assert place.guests["again"].memory is not None
        assert place.guests["again"].memory.data == noise(size, number)
    assert previous is not None
    assert image(tmp_path / "root", previous, "memory").exists()
    assert target.verify(target.points(), lambda size: None) == []


@pytest.mark.parametrize("size", [MIB, MIB + 4711])
def test_the_memory_alone_is_written_to_a_file(tmp_path: Path, size: int) -> None:
    (tmp_path / "root").mkdir()
    target = target_at(tmp_path / "root")
    target.init()
    lab = FakeHypervisor()
    guest(lab, "web", noise(MIB, 1)).memory = FakeDisk(bytearray(noise(size, 7)))
    with target.writer() as writer:
        work = BackUp(lab, "lab", "", target.id, writer, Quiesce.NO, Event(), lambda progress: None, memory=True)
        point = work.run(lab.machines()[0], None).point
    (tmp_path / "state").mkdir(mode=0o700)
    files = ImageHypervisor(ImageHypervisor.options(), HypervisorContext("files", tmp_path / "state"))
    request = RestoreRequest(disks={"memory": tmp_path / "memory.bin"})
    Restore(target, files, Event(), lambda key, done, size: None).run(point, request)
    assert (tmp_path / "memory.bin").read_bytes() == noise(size, 7)
