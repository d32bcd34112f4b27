"""Through the engine and a repository: what was backed up of a machine is what is restored of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import back_up, guest, noise, repository
from tests.vcsim.simulator import Simulator
from vbackup.api import HypervisorContext, RestoreRequest
from vbackup.engine.restore import Restore, Restored
from vbackup.repository.target import Repository
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import MemoryTransport
from vbackup_vsphere.hypervisor import Vsphere
from vbackup_vsphere.options import VsphereOptions

from .restores import MIB, WHERE


@pytest.fixture
def vsphere(vcsim: Simulator, tmp_path: Path) -> Iterator[Vsphere]:
    options = VsphereOptions.model_validate(vcsim.options(**WHERE, tracking="enable"))
    with closing(Vsphere(options, HypervisorContext("vc", tmp_path / "state"))) as hypervisor:
        yield hypervisor


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Repository]:
    with closing(repository(MemoryTransport(), tmp_path / "cache")) as opened:
        opened.init()
        yield opened


def test_every_point_comes_back_beside_and_in_place(vcsim: Simulator, vsphere: Vsphere, target: Repository) -> None:
    disks = [{"size": 2 * MIB, "controller": "pvscsi"}, {"size": MIB, "controller": "ahci"}]
    vcsim.add_vm("web", disks=disks, firmware="efi", nics=[{"kind": "vmxnet3"}])
    vcsim.nvram("web").write_bytes(b"variables")
    keys = [disk["key"] for disk in vcsim.disks("web")]
    points, then = [], []
    for turn in range(3):
        vcsim.guest_write("web", keys[turn % 2], turn * 65536, bytes([turn + 1]) * 70000)
        then.append([vcsim.disk("web", key).read_bytes() for key in keys])
        points.append(back_up(target, vsphere, "web"))
    vcsim.power("web", on=False)
    work = Restore(target, vsphere, threading.Event(), lambda key, done, size: None)
    for turn, point in enumerate(points):
        restored: Restored = work.run(point, RestoreRequest(name=f"copy{turn}"))
        assert restored.notes == ()
        copies = [disk["key"] for disk in vcsim.disks(f"copy{turn}")]
        assert [vcsim.disk(f"copy{turn}", key).read_bytes() for key in copies] == then[turn]
        assert vcsim.nvram(f"copy{turn}").read_bytes() == b"variables"
        work.run(point, RestoreRequest(overwrite=True))
        now = [disk["key"] for disk in vcsim.disks("web")]
        assert [vcsim.disk("web", key).read_bytes() for key in now] == then[turn]
    back_up(target, vsphere, "web")  # its new disks have another history, and are read in full
    vsphere.close()
    assert vcsim.leaks() == {}


def test_a_machine_of_another_hypervisor_is_restored_and_stored_once(
    vcsim: Simulator, vsphere: Vsphere, target: Repository
) -> None:
    elsewhere = FakeHypervisor()
    data = [noise(MIB, 1), noise(2 * MIB, 2)]
    guest(elsewhere, "web", *data)
    point = back_up(target, elsewhere, "web")
    work = Restore(target, vsphere, threading.Event(), lambda key, done, size: None)
    assert work.run(point, RestoreRequest()).result == "the machine web is there"
    keys = [disk["key"] for disk in vcsim.disks("web")]
    assert [vcsim.disk("web", key).read_bytes() for key in keys] == data
    again = back_up(target, vsphere, "web")
    assert again.stored == 0


def test_the_memory_of_a_point_is_left_out_and_said_so(vcsim: Simulator, vsphere: Vsphere, target: Repository) -> None:
    point = back_up(target, vsphere, "DC0_C0_RP0_VM0", memory=True)
    assert any(disk.is_memory for disk in point.disks)
    work = Restore(target, vsphere, threading.Event(), lambda key, done, size: None)
    restored = work.run(point, RestoreRequest(name="copy"))
    assert any("its memory is left out" in note for note in restored.notes)
