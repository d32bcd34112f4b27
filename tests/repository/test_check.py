"""Check and repair: every kind of damage is found, named and mapped, nothing else is; what can be healed is."""

from __future__ import annotations

import os
import random
import threading
from datetime import UTC, datetime, timedelta

import pytest

from tests.support import SECRET, back_up, guest, noise, repository, restored
from vbackup.api import (
    CheckOrder,
    CheckReport,
    Corrupt,
    NotFound,
    PruneOrder,
    Range,
    Unavailable,
    VBackupError,
    clock,
)
from vbackup.repository.damaged import list_damaged
from vbackup.repository.documents import put_document
from vbackup.repository.index import read_index
from vbackup.repository.keys import put_slot, unlock, wrap
from vbackup.repository.layout import pack_key
from vbackup.repository.packs import read_pack
from vbackup.repository.presence import Beat, Honoured
from vbackup.repository.sealing import ChunkKind, Keys
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import FaultyTransport, MemoryTransport

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


# What is whole


def test_a_whole_repository_is_reported_whole(place):
    report = place.check()
    assert (report.wrong, report.damage, report.repaired, report.notes) == ((), (), (), ())
    assert report.read == report.stored == sum(info.size for info in place.store.list("packs"))
    assert report.objects == len(list(place.store.list()))


def test_the_structure_is_checked_without_reading_data(place):
    read: list[int] = []

    def watch(number, operation, key):
        if operation == "get" and key.startswith("packs/"):
            read.append(number)

    report = place.check(CheckOrder(), FaultyTransport(place.store, watch))
    assert is_well(report)
    assert report.read == 0
    assert len(read) <= 8  # nodes of disk maps


def test_a_check_writes_nothing(place):
    before = {info.key: place.store.get(info.key) for info in place.store.list()}
    place.store.delete(place.packs()[0])
    del before[max(before.keys() - {info.key for info in place.store.list()})]
    assert not is_well(place.check())
    assert before == {info.key: place.store.get(info.key) for info in place.store.list()}


# Packs


@pytest.mark.parametrize("order", [CheckOrder(), ALL])
def test_a_missing_pack_is_mapped_to_all_that_it_takes_away(place, order):
    for key in place.packs():
        whole = place.store.get(key)
        place.store.delete(key)
        report = place.check(order)
        assert any(key in wrong for wrong in report.wrong)
        assert ranges(report) == place.unreadable() != set()
        place.store.put(key, whole)
    assert is_well(place.check(order))


def test_a_truncated_pack_is_mapped(place):
    key = place.packs()[0]
    whole = place.store.get(key)
    for size in (0, 5, len(whole) // 2, len(whole) - 1):
        place.store.put(key, whole[:size])
        report = place.check()
        assert any(key in wrong and f"{size} bytes" in wrong for wrong in report.wrong)
        assert place.unreadable() <= ranges(report)


def test_every_flipped_blob_is_found_by_reading_and_mapped_exactly(place):
    rng = random.Random(3)
    for key in place.packs():
        whole, pack = place.store.get(key), place.pack(key)
        kinds = {entry.kind: entry for entry in rng.sample(pack.entries, len(pack.entries))}
        for entry in [*kinds.values(), *rng.sample(pack.entries, min(3, len(pack.entries)))]:
            place.flip(key, entry.offset + rng.randrange(entry.length))
            report = place.check()
            (wrong,) = report.wrong
            assert key in wrong
            assert ranges(report) == place.unreadable() != set()
            place.store.put(key, whole)


def test_a_flipped_header_or_footer_is_found_and_loses_nothing(place):
    key = place.packs()[0]
    whole = place.store.get(key)
    for at in (0, 9, 20, 300, len(whole) - 1, len(whole) - 9, len(whole) - 60):
        place.flip(key, at)
        report = place.check()
        (wrong,) = report.wrong
        assert (key in wrong, report.damage) == (True, ())
        place.store.put(key, whole)


def test_swapped_packs_are_found(place):
    one, other = place.packs()[:2]
    first, second = place.store.get(one), place.store.get(other)
    place.store.put(one, second)
    place.store.put(other, first)
    report = place.check()
    assert {one, other} == {key for key in (one, other) if any(key in wrong for wrong in report.wrong)}
    assert ranges(report) == place.unreadable()


def test_garbage_among_the_packs_is_noted(place):
    key = f"packs/aa/{'aa' * 32}"
    place.store.put(key, b"no pack")
    report = place.check()
    assert is_well(report)
    assert any(key in note for note in report.notes)


# Index, points, records, slots


def test_damaged_and_missing_indexes_lose_nothing(place):
    for key in place.keys("index"):
        whole = place.store.get(key)
        for size in (0, len(whole) - 1):
            place.store.put(key, whole[:size])
            report = place.check(CheckOrder())
            (wrong,) = report.wrong
            assert (key in wrong, report.damage) == (True, ())
        place.store.delete(key)
        assert is_well(place.check(CheckOrder()))
        place.store.put(key, whole)


def test_damaged_points_are_named(place):
    for key in place.keys("points"):
        whole = place.store.get(key)
        for at in (3, 2000, len(whole) - 5):
            place.flip(key, at)
            (damage,) = place.check(CheckOrder()).damage
            assert damage.point == key.rpartition("/")[2]
            place.store.put(key, whole)


def records(place):
    """One of each kind, put as they are put in life."""
    keys, session = place.ring, os.urandom(16).hex()
    put = {
        f"sessions/{session}/00000003": Beat(host="h", process=1, time=clock.now(), seen=()),
        f"ended/{'e' * 32}/{'f' * 32}": Honoured(points=()),
    }
    for key, document in put.items():
        put_document(place.store, keys, key, document)
    target = place.open()
    points = target.points()
    target.protect(points[0], "the auditor wants it")
    target.delete([points[1]])
    target.close()
    del place.bytes[points[1].id]
    place.open().prune(PruneOrder())  # waits for that session, so there is a condemnation
    return [*put, *place.keys("protected"), *place.keys("deletions"), *place.keys("condemned")]


def test_every_damaged_record_is_named_and_set_right(place):
    keys = records(place)
    assert len({key.partition("/")[0] for key in keys}) == 5
    assert is_well(place.check())
    for key in keys:
        place.flip(key, 20)
    for key in keys:
        assert f"object {key} is damaged" in place.check(CheckOrder()).wrong
    report = place.check(REPAIR)
    assert is_well(report)
    assert {key for key in keys if any(key in done for done in report.repaired)} == set(keys)
    target = place.open()
    assert list(target.protected().values()) == ["the reason was damaged"]
    back_up(target, place.lab, "db")
    target.prune(PruneOrder())
    target.close()
    assert place.keys("condemned") == []


def test_a_damaged_condemnation_stays_while_a_prune_runs(place):
    put_document(place.store, place.ring, f"sessions/{'a' * 32}/00000001", Beat(
        host="h", process=1, time=clock.now(), seen=(), is_prune=True
    ))  # fmt: skip
    key = f"condemned/{'c' * 32}"
    place.store.put(key, b"rotten")
    report = place.check(CheckOrder(repair=True))
    assert report.wrong == (f"object {key} is damaged",)
    assert place.keys("condemned") == [key]


def test_slots_are_named(place):
    place.store.put(f"keys/{'b' * 32}", b"{}")
    keys = place.ring
    slot = wrap(keys.ring, WRITER, keys.repository, "made up").model_copy(update={"label": "another"})
    made_up = put_slot(place.store, slot)
    wrong = place.check(CheckOrder()).wrong
    assert [any(key in each for each in wrong) for key in (f"keys/{'b' * 32}", made_up)] == [True, True]


def test_sessions_are_noted(place):
    beat = Beat(host="elsewhere", process=17, time=clock.now(), seen=())
    put_document(place.store, place.ring, f"sessions/{'a' * 32}/00000001", beat)
    report = place.check(CheckOrder())
    assert is_well(report)
    assert any("elsewhere (process 17)" in note for note in report.notes)


def test_the_repository_object_is_checked_again(place):
    target = place.open()
    assert target.points()
    place.flip("repository", 40)
    assert any("repository" in wrong for wrong in target.check(CheckOrder(), lambda size: None).wrong)
    target.close()


def test_a_key_that_only_writes_finds_the_pack(place):
    keys = place.ring
    put_slot(place.store, wrap(keys.ring.for_writing(), WRITER, keys.repository))
    assert is_well(place.check(secret=WRITER))
    key = place.packs()[0]
    entry = next(entry for entry in place.pack(key).entries if entry.kind == ChunkKind.DATA)
    place.flip(key, entry.offset + 20)
    report = place.check(secret=WRITER)
    (wrong,) = report.wrong
    assert key in wrong
    assert "only a key that reads" in wrong
    assert place.unreadable() < ranges(report)
    assert not is_well(place.check(CheckOrder(read_data=True, repair=True), secret=WRITER))
    assert ranges(place.check(CheckOrder())) == place.unreadable()


# Which data is read when


class Reads:
    """Runs checks of one host, and says which packs were read, in order."""

    def __init__(self, place, monkeypatch):
        self.place = place
        self.now = datetime(2026, 11, 22, tzinfo=UTC)
        self.host = place.tmp_path / "reads"
        self.dies_at = 0
        monkeypatch.setattr("vbackup.repository.survey.clock.now", lambda: self.now)
        monkeypatch.setattr("vbackup.repository.packcheck._AT_ONCE", 1)

    def __call__(self, **order):
        self.now += timedelta(hours=1)
        read: list[str] = []

        def note(number, operation, key):
            if operation == "get" and key.startswith("packs/"):
                read.append(key)
                if len(read) == self.dies_at:
                    raise Died

        target = repository(FaultyTransport(self.place.store, note), self.host, chunk_size=CHUNK)
        try:
            target.check(CheckOrder(read_data=True, **order), lambda size: None)
        except Died:
            pass
        finally:
            target.close()
        return read


@pytest.fixture
def many(tmp_path):
    """Ten packs of one size, listed in the index, that no point needs: they are read for nothing but their bytes."""
    place = Place(tmp_path)
    for info in list(place.store.list()):
        if info.key.startswith(("points", "packs", "index")):
            place.store.delete(info.key)
    place.bytes.clear()
    for number in range(10):
        with place.open().writer() as writer:
            disk = writer.disk(CHUNK, None)
            disk.write(0, noise(CHUNK, 100 + number))
            disk.finish()
    assert len({place.store.size(key) for key in place.packs()}) == 1
    return place


def test_a_percentage_reads_what_was_unread_for_the_longest_time(many, monkeypatch):
    reads = Reads(many, monkeypatch)
    read: list[str] = []
    for _ in range(7):
        read += reads(percent=29)
        reads.now += timedelta(days=1)
    assert set(read[:10]) == set(many.packs())
    assert len(set(read[10:19])) == 9


def test_since_reads_what_was_not_read_in_that_time(many, monkeypatch):
    reads = Reads(many, monkeypatch)
    assert set(reads(since=timedelta(days=30))) == set(many.packs())
    reads.now += timedelta(days=29)
    assert reads(since=timedelta(days=30)) == []
    reads.now += timedelta(days=2)
    assert set(reads(since=timedelta(days=30))) == set(many.packs())
    reads.now -= timedelta(days=100)  # the clock was ahead: what was read in the future was not read
    assert set(reads(since=timedelta(days=30))) == set(many.packs())


def test_a_reading_that_was_killed_goes_on(many, monkeypatch):
    reads = Reads(many, monkeypatch)
    reads.dies_at = 6
    begun = reads()
    reads.dies_at = 0
    rest = reads()
    assert set(many.packs()) == set(begun) | set(rest)
    assert len(set(begun) & set(rest)) <= 2
    assert set(reads()) == set(many.packs())  # complete: the next one begins anew


def test_a_lost_memory_of_readings_is_no_harm(many, monkeypatch):
    reads = Reads(many, monkeypatch)
    reads()
    (file,) = (reads.host).glob("readings-*.sqlite")
    file.write_bytes(b"rotten" * 1000)
    assert set(reads(since=timedelta(days=30))) == set(many.packs())


# Repair


def test_a_repair_rebuilds_the_index(place):
    good = {key: place.store.get(key) for key in place.keys("index")}
    for key in good:
        place.flip(key, 30)
    report = place.check(REPAIR)
    assert is_well(report)
    assert all(any(key in done for done in report.repaired) for key in good)
    assert not good.keys() & set(place.keys("index"))
    listed = {
        pack_key(pack.name) for key in place.keys("index") for pack in read_index(place.ring, key, place.store.get(key))
    }
    assert listed == set(place.packs())
    place.assert_whole()


def test_a_repair_takes_lost_packs_off_the_index(place):
    place.store.delete(place.packs()[-1])
    lost = place.unreadable()
    report = place.check(REPAIR)
    assert ranges(report) == lost == place.unreadable()
    again = place.check(REPAIR)
    assert (again.wrong, again.repaired, ranges(again)) == ((), (), lost)


def duplicate(place, key):
    """Store all that a pack holds in another one as well, as a host that does not know the pack."""
    whole = place.store.get(key)
    indexes = {index: place.store.get(index) for index in place.keys("index")}
    place.store.delete(key)
    for index in indexes:
        place.store.delete(index)
    target = place.open()
    for name in place.lab.guests:
        for disk in place.lab.guests[name].disks.values():
            disk.lost_reason = "read it all"
        place.back_up(target, name)
    target.close()
    place.store.put(key, whole)
    for index, data in indexes.items():
        place.store.put(index, data)


def test_another_pack_with_the_same_chunk_makes_damage_harmless(place):
    key = place.packs()[0]
    duplicate(place, key)
    elsewhere = {entry.id for other in place.packs() if other != key for entry in place.pack(other).entries}
    twice = [entry for entry in place.pack(key).entries if entry.id in elsewhere]
    assert len(twice) > 200
    for entry in twice[20:30]:
        place.flip(key, entry.offset + 20)
    lost = place.unreadable()
    assert not lost
    report = place.check()
    assert (len(report.wrong), report.damage) == (1, ())
    assert is_well(place.check(REPAIR))
    place.open().prune(PruneOrder())
    assert key not in place.packs()
    assert is_well(place.check())
    assert place.keys("damaged") == [f"damaged/{key.rpartition('/')[2]}"]
    place.check(REPAIR)
    assert place.keys("damaged") == []
    place.assert_whole()


def test_what_is_whole_in_a_damaged_pack_is_moved_and_the_rest_reported(place):
    key = place.packs()[0]
    data = [entry for entry in place.pack(key).entries if entry.kind == ChunkKind.DATA]
    for entry in data[50:53]:
        place.flip(key, entry.offset + 20)
    lost = place.unreadable()
    report = place.check(REPAIR)
    assert ranges(report) == lost == place.unreadable()
    assert 3 <= len(lost) <= 6  # by point, and chunks lie in a pack in any order
    assert {damage.machine for damage in report.damage} == {"web"}
    assert any("copied" in done for done in report.repaired)
    # Others know, build on nothing in it, and keep it: what is lost may be readable another day.
    name = bytes.fromhex(key.rpartition("/")[2])
    assert list_damaged(place.store) == {name}
    place.open().prune(PruneOrder())
    assert key in place.packs()
    place.store.delete(key)
    assert place.unreadable() == lost


def test_the_machine_itself_heals_what_it_still_has(place):
    """On a host that never met the damage."""
    key = place.packs()[0]
    other = repository(place.store, place.tmp_path / "first")
    for entry in place.pack(key).entries:
        if entry.kind == ChunkKind.DATA:
            place.flip(key, entry.offset + 20)
    assert not is_well(place.check(REPAIR))
    for name in place.lab.guests:
        place.back_up(other, name)
    other.close()
    report = place.check()
    now = {point for point, disks in place.bytes.items() if disks == place.bytes[list(place.bytes)[-1]]}
    assert not {damage.point for damage in report.damage} & now
    assert ranges(report) == place.unreadable()


def test_a_pack_that_reads_well_again_is_taken_back(place):
    key = place.packs()[0]
    whole = place.store.get(key)
    place.flip(key, place.pack(key).entries[5].offset + 20)
    assert not is_well(place.check(REPAIR))
    place.store.put(key, whole)
    assert is_well(place.check(CheckOrder()))
    assert is_well(place.check(CheckOrder(repair=True)))
    assert list_damaged(place.store) == set()
    place.assert_whole()


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


class Liar(Copy):
    def read(self, point, disk, wanted):
        return noise(wanted.length, 77)

    def file(self, point, name):
        return noise(3000, 78)


def destroy(place, rng):
    """Damage and delete packs at random."""
    for key in place.packs():
        if rng.random() < 0.3:
            place.store.delete(key)
            continue
        for entry in place.pack(key).entries:
            if rng.random() < 0.3:
                place.flip(key, entry.offset + rng.randrange(entry.length))


@pytest.mark.parametrize("seed", range(4))
def test_everything_is_brought_back_from_another_copy(place, seed):
    destroy(place, random.Random(seed))
    lost = place.unreadable()
    assert ranges(place.check()) == lost
    report = place.check(CheckOrder(read_data=True, repair=True, elsewhere=Copy(place)))
    assert is_well(report)
    assert is_well(place.check())
    place.assert_whole()
    place.open().prune(PruneOrder())
    assert is_well(place.check())
    place.assert_whole()


@pytest.mark.parametrize("seed", range(4))
def test_what_stays_lost_is_reported_exactly(place, seed):
    destroy(place, random.Random(seed))
    lost = place.unreadable()
    report = place.check(REPAIR)
    assert ranges(report) == place.unreadable() == lost


def test_a_copy_that_lies_is_not_believed(place):
    place.store.delete(place.packs()[0])
    lost = place.unreadable()
    report = place.check(CheckOrder(repair=True, elsewhere=Liar(place)))
    assert ranges(report) == lost == place.unreadable()


def test_a_copy_that_lacks_a_part_gives_the_rest(place):
    class Partial(Copy):
        def read(self, point, disk, wanted):
            if wanted.offset <= 20 * CHUNK < wanted.offset + wanted.length and disk == "vda":
                return None
            return super().read(point, disk, wanted)

    key = place.packs()[0]
    for entry in place.pack(key).entries:
        if entry.kind == ChunkKind.DATA:
            place.flip(key, entry.offset + 20)
    report = place.check(CheckOrder(read_data=True, repair=True, elsewhere=Partial(place)))
    assert ranges(report) == place.unreadable()
    assert {(disk, offset) for _, disk, offset in ranges(report)} == {("vda", 20 * CHUNK)}


# Others at the same time


def test_a_writer_and_a_prune_that_run_meanwhile_are_no_damage(place):
    """At each listing and each look at a pack something is committed, deleted or pruned."""
    rng = random.Random(1)
    other = place.open()
    inside: list[bool] = []

    def meanwhile(number, operation, key):
        if inside or rng.random() > 0.07 or key.startswith(("sessions", "ended")):
            return
        inside.append(True)
        try:
            web = place.lab.guests["web"].disks["vda"]
            web.write(rng.randrange(300) * CHUNK, noise(CHUNK, rng.randrange(1 << 30)))
            place.back_up(other, "web")
            points = other.points()
            if len(points) > 4:
                gone = rng.choice(points)
                other.delete([gone])
                del place.bytes[gone.id]
            other.prune(PruneOrder())
        finally:
            inside.pop()

    for order in (ALL, REPAIR):
        for _ in range(2):
            report = place.check(order, FaultyTransport(place.store, meanwhile))
            assert (report.wrong, report.damage) == ((), ())
    other.close()
    place.assert_whole()


def test_a_repair_while_a_writer_commits_and_a_prune_runs(place):
    key = place.packs()[0]
    data = [entry for entry in place.pack(key).entries if entry.kind == ChunkKind.DATA]
    for entry in data[50:60]:
        place.flip(key, entry.offset + 20)
    other = repository(place.store, place.tmp_path / "first")
    done = []

    def meanwhile(number, operation, key):
        if operation in ("put", "delete") and not key.startswith("sessions") and not done:
            done.append(key)
            place.lab.guests["db"].disks["vda"].write(0, noise(CHUNK, len(done)))
            place.back_up(other, "db")
            other.prune(PruneOrder())
            done.pop()

    faulty = FaultyTransport(place.store, None, meanwhile)
    report = place.check(CheckOrder(read_data=True, repair=True, elsewhere=Copy(place)), faulty)
    assert is_well(report)
    other.prune(PruneOrder())
    other.close()
    assert key not in place.packs()
    assert is_well(place.check())
    place.assert_whole()


def broken_place(place):
    """Damage of several kinds at once, that a copy can heal."""
    first, second = place.packs()[:2]
    for entry in place.pack(first).entries[40:60]:
        place.flip(first, entry.offset + 20)
    place.store.delete(second)
    place.flip(place.keys("index")[0], 40)
    place.flip(place.keys("deletions")[0], 20)


def snapshot(store):
    copy = MemoryTransport()
    for info in list(store.list()):
        copy.put(info.key, store.get(info.key))
    return copy


def every(count, most=25):
    """Not all of the many that read one after another, but all kinds."""
    step = max(1, count // most)
    return range(1, count + 1, step)


@pytest.fixture
def broken(place):
    put_document(place.store, place.ring, f"deletions/{'d' * 32}", Honoured(points=()))
    broken_place(place)
    return place


def test_trouble_with_the_store_is_never_reported_as_damage(place):
    counting = FaultyTransport(place.store)
    assert is_well(place.check(ALL, counting))
    for number in range(1, counting.operations + 1):
        faulty = FaultyTransport(
            place.store, lambda n, op, key, number=number: Unavailable("the store is away") if n == number else None
        )
        try:
            report = place.check(ALL, faulty)
        except Unavailable:
            continue
        assert is_well(report), number


def test_trouble_in_a_repair_is_an_error_and_the_next_one_heals(broken):
    order = CheckOrder(read_data=True, repair=True, elsewhere=Copy(broken))
    before = broken.store
    broken.store = snapshot(before)
    counting = FaultyTransport(broken.store)
    assert is_well(broken.check(order, counting))
    for number in every(counting.operations):
        broken.store = snapshot(before)
        faulty = FaultyTransport(
            broken.store, lambda n, op, key, number=number: Unavailable("the store is away") if n == number else None
        )
        try:
            assert is_well(broken.check(order, faulty))
        except Unavailable:
            assert is_well(broken.check(order)), number


def test_a_repair_killed_anywhere_takes_nothing_away_and_the_next_one_heals(broken):
    order = CheckOrder(read_data=True, repair=True, elsewhere=Copy(broken))
    before = broken.store
    sound = broken.unreadable()
    broken.store = snapshot(before)
    counting = FaultyTransport(broken.store)
    assert is_well(broken.check(order, counting))
    for after in (False, True):
        for number in every(counting.operations, 8 if after else 16):
            broken.store = snapshot(before)
            dead = threading.Event()

            def die(n, op, key, number=number, dead=dead):
                if n >= number or dead.is_set():
                    dead.set()
                    raise Died

            faulty = FaultyTransport(broken.store, None, die) if after else FaultyTransport(broken.store, die)
            with pytest.raises((Died, VBackupError)):
                broken.check(order, faulty)
            assert broken.unreadable() <= sound, number
            assert is_well(broken.check(order)), number
    broken.assert_whole()


def test_a_body_that_is_wrong_once_is_no_damage(place):
    """A store that hands out rubbish for one request, of whatever object."""

    class Once(FaultyTransport):
        def get(self, key, offset=0, length=None):
            data = super().get(key, offset, length)
            return noise(len(data), 5) if self.operations == self.number and self.hit(key) else data

        @staticmethod
        def hit(key):
            return not key.startswith(("repository", "keys/"))

    counting = FaultyTransport(place.store)
    place.check(ALL, counting)
    before = {info.key for info in place.store.list()}
    for number in range(1, counting.operations + 1):
        rotten = Once(place.store)
        rotten.number = number
        try:
            report = place.check(REPAIR, rotten)
        except Unavailable:
            continue
        assert is_well(report), number
    assert before <= {info.key for info in place.store.list()}
    place.assert_whole()


def test_a_point_that_is_gone_is_not_checked_but_missed(place):
    target = place.open()
    points = target.points()
    place.store.delete(f"points/{points[0].id}")
    (damage,) = target.check(CheckOrder(), lambda size: None).damage
    assert damage.point == points[0].id
    target.close()
    with pytest.raises(NotFound):
        place.store.get(f"points/{points[0].id}")
