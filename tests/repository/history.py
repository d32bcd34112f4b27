"""A small repository that has lived: every kind of object is in it, and all that it should give back is known."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import back_up, guest, noise, repository
from vbackup.api import Block, Corrupt, Point, PruneOrder, Range, Unavailable, VBackupError
from vbackup.repository.damaged import publish
from vbackup.repository.keys import new_private_key
from vbackup.repository.presence import end_session
from vbackup.repository.target import Repository
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import FaultyTransport, MemoryTransport

CHUNK = 16 << 10
KINDS = (
    "repository", "keys", "removed", "packs", "index", "damaged", "points", "protected", "deletions", "sessions",
    "ended", "condemned",
)  # fmt: skip


def target(store, place: Path) -> Repository:
    return repository(store, place, chunk_size=CHUNK, codecs=("aes-256-gcm",))


def objects(store) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list()}


def store_of(objects: dict[str, bytes]) -> MemoryTransport:
    store = MemoryTransport()
    for key, data in objects.items():
        store.put(key, data)
    return store


@dataclass
class History:
    """``now`` and ``before`` are objects by key; ``places`` are hosts' own directories, to be copied."""

    lab: FakeHypervisor
    now: dict[str, bytes]
    before: dict[str, bytes]
    truth: dict[str, dict[str, bytes]]
    """Bytes of disks and files by point id."""
    points: dict[str, Point]
    places: dict[str, Path]
    record: str
    """Key of the record of the deletion that the host ``behind`` has yet to learn of."""
    garbage: frozenset[str] = frozenset()
    """Keys of packs that no point needs."""
    other: dict[str, bytes] = field(default_factory=dict)
    """Another repository's objects: the same secret opens it."""

    def of(self, kind: str) -> list[str]:
        return sorted(key for key in self.now if key == kind or key.startswith(f"{kind}/"))

    def another_lab(self) -> FakeHypervisor:
        return copy.deepcopy(self.lab)

    def host(self, name: str, where: Path) -> Path:
        """Return a host's directory, as it was: ``fresh``, ``warm``, or ``behind`` (not there for a while)."""
        if name != "fresh":
            shutil.copytree(self.places[name], where)
        return where


class _Maker:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.store = MemoryTransport()
        self.lab = FakeHypervisor()
        self.truth: dict[str, dict[str, bytes]] = {}
        self.target = target(self.store, place / "warm")
        self.target.init()

    def back_up(self, name: str) -> Point:
        machine = self.lab.guests[name]
        point = back_up(self.target, self.lab, name)
        self.truth[point.id] = {key: bytes(disk.data) for key, disk in machine.disks.items()} | machine.files
        return point

    def dead_run(self, seed: int) -> None:
        """A writer that stored a pack, and lost the store before its index and its point; its sign of life stays."""

        def fail(number: int, operation: str, key: str) -> Exception | None:
            gone.append(operation == "put" and key.startswith("index/"))
            return Unavailable("gone") if any(gone) else None

        gone: list[bool] = []
        guest(self.lab, "dead", noise(3 * CHUNK, seed))
        with pytest.raises(Unavailable):
            back_up(target(FaultyTransport(self.store, fail), self.place / f"dead{seed}"), self.lab, "dead")
        del self.lab.guests["dead"]


def make(place: Path) -> History:
    """Backups of two machines, a point protected, one deleted, a dead run, a session that was ended, garbage.

    Two keys were removed, and two packs are known to be damaged.
    """
    made = _Maker(place)
    web = guest(made.lab, "web", noise(20 * CHUNK + 100, 1), noise(CHUNK, 2) + bytes(5 << 20) + noise(CHUNK, 3))
    web.files = {"nvram": noise(2 * CHUNK + 7, 4)}
    guest(made.lab, "db", noise(5 * CHUNK, 5))
    points = [made.back_up("web"), made.back_up("db")]
    web.disks["vda"].write(3 * CHUNK, noise(CHUNK, 6))
    gone = made.back_up("web")
    before = objects(made.store)
    made.target.points()
    shutil.copytree(place / "warm", place / "behind")
    web.disks["vda"].write(3 * CHUNK, noise(2 * CHUNK, 7))
    web.disks["vdb"].write(4 << 20, noise(100, 8))
    points.append(made.back_up("web"))
    made.target.protect(points[0], "the first one")
    made.target.protect(points[1], "the other machine")
    _, public = new_private_key()
    ring = made.target.key_ring()
    ring.add_recipient(public, "offline", read=True)
    for name in ("of one who left", "of another"):
        _, public = new_private_key()
        ring.remove(ring.add_recipient(public, name, read=True).id)
    made.target.delete([gone])
    (record,) = (info.key for info in made.store.list("deletions"))
    del made.truth[gone.id]
    guest(made.lab, "gone", noise(4 * CHUNK, 9))
    made.target.delete([made.back_up("gone")])
    keys, catalogue = made.target._open().keys, made.target._open().catalogue
    end_session(made.store, keys, catalogue.sessions()[points[-1].id], catalogue.sessions)
    end_session(made.store, keys, catalogue.sessions()[points[0].id], catalogue.sessions)
    made.dead_run(77)
    made.dead_run(78)
    return _finish(made, points, before, record)


def _finish(made: _Maker, points: list[Point], before: dict[str, bytes], record: str) -> History:
    opened = made.target._open()
    needed: set[str] = set()
    for point in points:
        for disk in point.disks:
            for ids in made.target._reader(point, disk.key).map.needs():
                needed |= {place[0].pack.hex() for place in opened.store.locate(sorted(ids)).values()}
        for content in point.files.values():
            ids = [bytes.fromhex(chunk) for chunk in content["chunks"]]
            needed |= {place[0].pack.hex() for place in opened.store.locate(ids).values()}
    packs = {info.key.rpartition("/")[2]: info.key for info in made.store.list("packs")}
    garbage = frozenset(packs[name] for name in packs.keys() - needed)
    for name in sorted(packs.keys() - needed)[:2]:
        opened.store.condemnations.put([bytes.fromhex(name)])
        publish(made.store, [bytes.fromhex(name)])
    assert made.target.verify(made.target.points(), lambda size: None) == []
    made.target.prune(PruneOrder(dry_run=True))
    made.target.close()
    other = _Maker(made.place / "other")
    guest(other.lab, "web", noise(4 * CHUNK, 1))
    point = other.back_up("web")
    other.target.protect(point, "another")
    other.target.close()
    places = {"warm": made.place / "warm", "behind": made.place / "behind"}
    points_by_id = {point.id: point for point in points}
    truth = {point.id: made.truth[point.id] for point in points}
    now = objects(made.store)
    assert {key.partition("/")[0] for key in now} == {*KINDS}
    return History(made.lab, now, before, truth, points_by_id, places, record, garbage, objects(other.store))


# -- what a host sees -------------------------------------------------------------------------------------------------


def unreadable(target: Repository, point: Point, disk: str, truth: bytes) -> set[int]:
    """Return the chunks of a disk that cannot be read, found one by one; whatever can be is compared."""
    bad: set[int] = set()
    stack = [(0, -(-len(truth) // CHUNK))]
    while stack:
        first, end = stack.pop()
        start, stop = first * CHUNK, min(end * CHUNK, len(truth))
        try:
            got = b"".join(bytes(block.data) for block in _read(target, point, disk, start, stop))
        except Corrupt:
            if end - first == 1:
                bad.add(first)
            else:
                middle = (first + end) // 2
                stack += [(first, middle), (middle, end)]
            continue
        assert got == truth[start:stop], f"wrong bytes in {disk} at {start}"
    return bad


def _read(target: Repository, point: Point, disk: str, start: int, stop: int) -> Iterator[Block]:
    step = 4 << 20
    return target.read(point, disk, (Range(at, min(step, stop - at)) for at in range(start, stop, step)))


def complaint(error: VBackupError) -> str:
    return f"{error.message} {error.hint}"
