"""A repository to be damaged, checked and repaired, and what of it can no longer be read, by brute force."""

from __future__ import annotations

import pytest

from tests.support import SECRET, back_up, guest, noise, repository, restored
from vbackup.api import CheckOrder, CheckReport, Corrupt, Range
from vbackup.repository.keys import unlock
from vbackup.repository.packs import read_pack
from vbackup.repository.sealing import Keys
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import MemoryTransport

CHUNK = 16 << 10
ALL = CheckOrder(read_data=True)
REPAIR = CheckOrder(read_data=True, repair=True)
WRITER = SECRET.replace(b"bm90", b"bm91")
Ranges = set[tuple[str, str, int]]


class Died(BaseException):
    """Stands for kill -9: nothing on the way may catch it."""


class Place:
    """A repository with three points of two machines, and their bytes."""

    def __init__(self, tmp_path):
        self.tmp_path = tmp_path
        self.count = 0
        self.store = MemoryTransport()
        self.lab = FakeHypervisor()
        self.bytes = {}
        target = repository(self.store, tmp_path / "first", chunk_size=CHUNK)
        target.init()
        web = guest(self.lab, "web", noise(300 * CHUNK + 100, 1), bytes(40 * CHUNK) + noise(CHUNK, 9))
        web.files = {"nvram": noise(CHUNK + 1000, 2)}
        guest(self.lab, "db", noise(30 * CHUNK, 3))
        self.back_up(target, "web")
        self.back_up(target, "db")
        web.disks["vda"].write(10 * CHUNK, noise(3 * CHUNK, 4))
        self.back_up(target, "web")
        target.close()

    def back_up(self, target, name):
        point = back_up(target, self.lab, name)
        self.bytes[point.id] = {key: bytes(disk.data) for key, disk in self.lab.guests[name].disks.items()}
        return point

    def open(self, transport=None, **more):
        """As a host that knows nothing yet."""
        self.count += 1
        return repository(transport or self.store, self.tmp_path / f"host{self.count}", chunk_size=CHUNK, **more)

    def check(self, order=ALL, transport=None, **more) -> CheckReport:
        target = self.open(transport, **more)
        try:
            return target.check(order, lambda size: None)
        finally:
            target.close()

    def keys(self, prefix):
        return sorted(info.key for info in self.store.list(prefix))

    def packs(self):
        """Biggest first."""
        return sorted(self.keys("packs"), key=self.store.size, reverse=True)

    @property
    def ring(self):
        target = self.open()
        repository_id = bytes.fromhex(target.id)
        return Keys(unlock(self.store, SECRET, repository_id)[1], repository_id)

    def pack(self, key):
        return read_pack(self.store, self.ring, bytes.fromhex(key.rpartition("/")[2]))

    def flip(self, key, at):
        data = bytearray(self.store.get(key))
        data[at] ^= 4
        self.store.put(key, bytes(data))

    def unreadable(self) -> Ranges:
        """By brute force: each chunk of each disk of each point that cannot be read, or is not what was captured."""
        target = self.open()
        lost: Ranges = set()
        for point in target.points():
            for disk in point.disks:
                lost |= {(point.id, disk.key, at) for at in self.lost_of(target, point, disk, 0, disk.size)}
            for name in point.files:
                try:
                    target.file(point, name)
                except Corrupt:
                    lost.add((point.id, name, 0))
        target.close()
        return lost

    def lost_of(self, target, point, disk, start, end):
        try:
            data = b"".join(block.data for block in target.read(point, disk.key, [Range(start, end - start)]))
        except Corrupt:
            if end - start <= CHUNK:
                return [start]
            middle = start + max(CHUNK, (end - start) // 2 // CHUNK * CHUNK)
            parts = ((start, middle), (middle, end))
            return [at for part in parts for at in self.lost_of(target, point, disk, *part)]
        assert data == self.bytes[point.id][disk.key][start:end]
        return []

    def assert_whole(self):
        target = self.open()
        points = target.points()
        assert self.bytes == {point.id: restored(target, point) for point in points}
        assert target.verify(points, lambda size: None) == []
        target.close()


def ranges(report: CheckReport) -> Ranges:
    """A report's damage, chunk by chunk."""
    found: Ranges = set()
    for damage in report.damage:
        assert damage.length > 0
        if damage.disk == "nvram":
            found.add((damage.point, damage.disk, 0))
            continue
        assert damage.offset % CHUNK == 0
        found |= {
            (damage.point, damage.disk, offset) for offset in range(damage.offset, damage.offset + damage.length, CHUNK)
        }
    return found


def is_well(report: CheckReport) -> bool:
    return not report.wrong and not report.damage


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


class Copy:
    """Another target that holds the same points, with another key and other chunks."""

    def __init__(self, place, chunk_size=16 << 10):
        self.place = place
        self.asked: list[str] = []

    def read(self, point, disk, wanted):
        self.asked.append(disk)
        return self.place.bytes[point][disk][wanted.offset :][: wanted.length] if point in self.place.bytes else None

    def file(self, point, name):
        self.asked.append(name)
        return self.place.lab.guests["web"].files[name]
