"""Others at the same time: who fails harms no other, and what was committed stays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import tests.support
from tests.repository.adversity import CHUNK, disks, lab, store, work
from tests.support import back_up, guest, noise, repository, restored
from vbackup.api import Unavailable
from vbackup.testing.hypervisors import FakeCapture, FakeHypervisor
from vbackup.testing.transports import FaultyTransport
from vbackup_zstd.codec import Zstd

__all__ = ["lab", "store"]  # fixtures


def test_one_machine_that_fails_harms_no_other(store, lab, tmp_path, monkeypatch):
    """A codec falls over in a worker of one machine, and in the file of another."""

    class Odd(Zstd):
        name = "odd"

        def encode(self, data, context):
            if bytes(data[:3]) in {b"bad", b"nvr"}:
                raise RuntimeError("a third party's codec fell over")
            return super().encode(data, context)

    monkeypatch.setitem(tests.support.CODECS, "odd", Odd)
    target = repository(store, tmp_path, codecs=("odd", "aes-256-gcm"))
    target.init()
    guest(lab, "a", b"bad" + noise(CHUNK - 3, 1))
    guest(lab, "b", b"").files = {"nvram": b"nvram"}
    guest(lab, "c", noise(CHUNK, 2))
    with target.writer() as writer:
        for machine in lab.machines()[:2]:
            with pytest.raises(RuntimeError):
                work(lab, writer, target.id).run(machine, None)
        point = work(lab, writer, target.id).run(lab.machines()[2], None).point
    assert restored(target, point) == disks(lab, "c")


def test_no_guest_is_disturbed_for_a_store_that_has_failed(store, lab, tmp_path):
    target = repository(
        FaultyTransport(store, lambda n, op, key: Unavailable("gone for good") if key.startswith("packs/") else None),
        tmp_path,
    )
    target.init()
    for name in ("a", "b"):
        guest(lab, name, noise(CHUNK, ord(name)))
    with target.writer() as writer:
        for machine in lab.machines():
            with pytest.raises(Unavailable, match="gone for good"):
                work(lab, writer, target.id).run(machine, None)
    assert lab.captures == 1


def test_a_reader_that_stays_open_sees_what_others_store_later(store, lab, tmp_path):
    """However soon after it has looked: of what it has listed nothing is told to be missing."""
    writer = repository(store, tmp_path / "w")
    writer.init()
    reader = repository(store, tmp_path / "r")
    machine = guest(lab, "web", noise(10 * CHUNK, 1))
    for number in range(4):
        machine.disks["vda"].write(0, noise(CHUNK, 50 + number))
        back_up(writer, lab, "web")
        assert restored(reader, reader.points()[-1]) == disks(lab)


def test_a_look_that_fails_is_made_again(store, lab, tmp_path):
    """A store that is away for a moment is no reason to take for missing what it did not show."""
    away: list[bool] = []
    writer = repository(store, tmp_path / "w")
    writer.init()
    faulty = FaultyTransport(store, lambda n, op, key: Unavailable("away") if away and op == "list" else None)
    reader = repository(faulty, tmp_path / "r")
    machine = guest(lab, "web", noise(10 * CHUNK, 1))
    for number in range(4):
        machine.disks["vda"].write(0, noise(CHUNK, 50 + number))
        back_up(writer, lab, "web")
        point = reader.points()[-1]
        away.append(True)
        for _ in range(3):
            with pytest.raises(Unavailable):
                restored(reader, point)
        away.clear()
        assert restored(reader, point) == disks(lab)


def test_a_store_that_fails_after_the_last_commit_takes_no_point_back(store, lab, tmp_path):
    away: list[bool] = []
    target = repository(
        FaultyTransport(store, lambda n, op, key: Unavailable("away") if away and op == "put" else None), tmp_path
    )
    target.init()
    guest(lab, "web", noise(10 * CHUNK, 1))
    with target.writer() as writer:
        work(lab, writer, target.id).run(lab.machines()[0], None)
        disk = writer.disk(CHUNK, None)
        disk.write(0, noise(CHUNK, 3))
        disk._collect(wait=True)
        away.append(True)
    assert len(target.points()) == 1


def test_a_capture_that_ends_badly_after_the_commit_is_a_warning(store, tmp_path):
    class Lab(FakeHypervisor):
        @contextlib.contextmanager
        def capture(self, machine, request) -> Iterator[FakeCapture]:
            with super().capture(machine, request) as capture:
                yield capture
            raise Unavailable("libvirtd went away")

    target = repository(store, tmp_path)
    target.init()
    lab = Lab()
    guest(lab, "web", noise(CHUNK, 1))
    with target.writer() as writer:
        made = work(lab, writer, target.id).run(lab.machines()[0], None)
    assert "libvirtd went away" in made.leftovers[0]
    assert lab.committed == [made.point.marker]
