"""Two repositories, a guest with a history in the first one, and how its points are copied to the other."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support import CODECS, back_up, codec, guest, noise, repository, restored
from vbackup.api import Point, TargetContext
from vbackup.engine.replicate import Common, Replica, Replicate
from vbackup.repository.keys import KEY_FILE_PREFIX
from vbackup.repository.target import Repository, RepositoryOptions
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import MemoryTransport

CHUNK = 64 << 10
OTHER = KEY_FILE_PREFIX + b"YW5vdGhlciBvbmUgb2YgdGhpcnR5LXR3byBieXRlcyAuLi4="


class Counting(MemoryTransport):
    """Counts what is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.read = self.written = 0

    def get(self, key, offset=0, length=None):
        data = super().get(key, offset, length)
        self.read += len(data)
        return data

    def put(self, key, data, *, if_absent=False):
        self.written += len(data)
        super().put(key, data, if_absent=if_absent)

    def clear(self):
        self.read = self.written = 0


def copy(source, destination, point, common: Common | None = None, *, stop=None, report=None) -> Replica:
    """Copy one point, as a job does."""
    with destination.writer() as writer:
        work = Replicate(source, destination, writer, stop or threading.Event(), report or (lambda disk: None))
        return work.run(point, common)


def copy_all(source, destination) -> list[Replica]:
    """Copy what is missing, oldest first, each on top of the one before."""
    done = []
    there = {point.id: point for point in destination.points()}
    last: Common | None = None
    for point in sorted(source.points(), key=lambda point: point.sequence):
        if point.id not in there:
            done.append(copy(source, destination, point, last))
            there[point.id] = done[-1].point
        last = Common(point, there[point.id])
    return done


class Two:
    """Two repositories, and a guest with a history in the first one."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self.tmp_path = tmp_path
        self.here, self.there = Counting(), Counting()
        self.lab = FakeHypervisor()
        self.source = repository(self.here, tmp_path / "here", chunk_size=options.pop("source_chunk", CHUNK))
        self.source.init()
        self.history: dict[str, dict[str, bytes]] = {}
        self.options = options

    def destination(self, **changes: Any) -> Repository:
        return repository(self.there, self.tmp_path / "there", **{"secret": OTHER, **self.options, **changes})

    def destination_at(self, store, cache: str) -> Repository:
        return repository(store, self.tmp_path / cache, **{"secret": OTHER, **self.options})

    def make(self, *, family: bool) -> Repository:
        made = self.destination()
        if family:
            made.init_with_keys_of(self.source)
        else:
            made.init()
        return made

    def back_up(self) -> Point:
        machine = self.lab.guests["web"]
        point = back_up(self.source, self.lab, "web")
        self.history[point.id] = {key: bytes(disk.data) for key, disk in machine.disks.items()}
        return point

    def live(self, points: int = 3) -> None:
        """Let a guest with two disks and a file write, and be backed up."""
        machine = guest(self.lab, "web", noise(40 * CHUNK + 77, 1), bytes(10 * CHUNK) + noise(5 * CHUNK, 2))
        machine.files = {"nvram": noise(100_000, 3)}
        for number in range(points):
            machine.disks["vda"].write(number * 5 * CHUNK, noise(2 * CHUNK, 10 + number))
            machine.disks["vdb"].write(0, bytes(CHUNK))
            self.back_up()

    def assert_whole(self, target) -> None:
        for point in target.points():
            assert restored(target, point) == self.history[point.id]
            assert target.file(point, "nvram") == noise(100_000, 3)
        assert target.verify(target.points(), lambda size: None) == []


@pytest.fixture
def two(tmp_path):
    return Two(tmp_path)


WAYS = pytest.mark.parametrize("family", [False, True], ids=["decoded", "as stored"])


def write_only(store: MemoryTransport, cache: Path, secret: bytes, public: Path, family: Repository | None = None):
    context = TargetContext(
        "main", store, [codec(name) for name in CODECS], codec, lambda: secret, cache, cache / "state"
    )
    return Repository(RepositoryOptions(chunk_size=CHUNK, recipients=(public,)), context)
