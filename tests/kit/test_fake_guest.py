"""Guests in memory that write while they are backed up, as a test has told them to."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.support import back_up, noise, repository, restored
from vbackup.api import Busy, CaptureRequest, GuestError, Quiesce, Range, RestoreRequest, Unsupported
from vbackup.repository.target import Repository
from vbackup.testing.guests import GRAIN, FakeGuest, When
from vbackup.testing.hypervisor_contract.saved import save
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import MemoryTransport

SIZE = 20 * GRAIN
REQUEST = CaptureRequest("0" * 32, quiesce=Quiesce.NO)


@pytest.fixture
def guest(fake_hypervisor: FakeHypervisor) -> FakeGuest:
    return FakeGuest.make(fake_hypervisor, "web", vda=noise(SIZE, 1), vdb=noise(SIZE, 2))


@pytest.fixture
def target(memory_transport: MemoryTransport, tmp_path: Path) -> Repository:
    target = repository(memory_transport, tmp_path)
    target.init()
    return target


def test_it_does_each_thing_in_its_time(fake_hypervisor: FakeHypervisor, guest: FakeGuest) -> None:
    seen: list[str] = []
    for when in When:
        guest.on(when, lambda when=when: seen.append(when.value))
    with fake_hypervisor.capture("web", REQUEST) as capture:
        list(capture.disks[0].read([Range(0, 512), Range(512, 512)]))
    assert seen == ["before", "open", "read", "read", "closed"]


def test_it_stops_after_so_many_times(fake_hypervisor: FakeHypervisor, guest: FakeGuest) -> None:
    seen: list[int] = []
    guest.on(When.OPEN, lambda: seen.append(1), times=2)
    for _ in range(3):
        with fake_hypervisor.capture("web", REQUEST):
            pass
    assert seen == [1, 1]


@pytest.mark.parametrize("when", list(When))
def test_a_guest_that_never_stops_writing_is_backed_up(
    fake_hypervisor: FakeHypervisor, guest: FakeGuest, target: Repository, when: When
) -> None:
    """Each point is the machine at one moment: as it was when the capture opened, whatever it wrote then."""
    numbers = itertools.count()

    def write() -> None:
        number = next(numbers)
        guest.write("vda", number * 7 % 20 * GRAIN, noise(4096, number))
        guest.write("vdb", (number * 3 % 19 + 1) * GRAIN - 2048, noise(4096, number))

    moments: list[dict[str, bytes]] = []
    guest.on(When.OPEN, lambda: moments.append({key: guest.read(key) for key in guest.disks}))
    guest.on(when, write)
    points = [back_up(target, fake_hypervisor, "web") for _ in range(4)]
    assert next(numbers) >= 4
    assert [restored(target, point) for point in points] == moments
    assert all(disk.full_reason is None for point in points[1:] for disk in point.disks)


def test_switched_off_and_on(fake_hypervisor: FakeHypervisor, guest: FakeGuest) -> None:
    saved = save(fake_hypervisor, guest)
    with pytest.raises(Busy, match="web is running"):
        saved.restore(fake_hypervisor, RestoreRequest(overwrite=True))
    guest.stop()
    assert not fake_hypervisor.machines()[0].running
    saved.restore(fake_hypervisor, RestoreRequest(overwrite=True, start=True))
    assert fake_hypervisor.machines()[0].running


def test_a_guest_that_cannot_be_frozen(fake_hypervisor: FakeHypervisor, guest: FakeGuest) -> None:
    guest.machine.freezes = False
    with (
        pytest.raises(GuestError, match="web"),
        fake_hypervisor.capture("web", CaptureRequest("0" * 32, quiesce=Quiesce.YES)),
    ):
        pass
    with fake_hypervisor.capture("web", CaptureRequest("0" * 32, quiesce=Quiesce.TRY)) as capture:
        assert (capture.quiesced, len(capture.notes)) == (False, 1)


def test_it_writes_no_files(fake_hypervisor: FakeHypervisor, guest: FakeGuest, tmp_path: Path) -> None:
    saved = save(fake_hypervisor, guest)
    with pytest.raises(Unsupported):
        saved.restore(fake_hypervisor, RestoreRequest(disks={"vda": tmp_path / "vda.raw"}))
    assert list(tmp_path.iterdir()) == []
