"""Prune in trouble: killed at each operation, out of space, over a store that lost packs, locks them or reads wrong."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest

from tests.repository.history import CHUNK, objects, store_of, target
from tests.support import CODECS, SECRET, back_up, codec, guest, noise, restored
from vbackup.api import (
    ConfigError,
    Locked,
    NoSpace,
    PruneOrder,
    TargetContext,
    Unavailable,
    VBackupError,
    clock,
)
from vbackup.repository import presence, prune
from vbackup.repository.keys import new_private_key
from vbackup.repository.layout import pack_key
from vbackup.repository.target import Repository, RepositoryOptions
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import FaultyTransport, MemoryTransport
from vbackup_local.transport import Local


@pytest.fixture(autouse=True)
def quick_beats(monkeypatch):
    monkeypatch.setattr(presence, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(prune, "BEAT_SECONDS", 0.02)


class Site:
    """A repository of which a third is garbage: whole packs, and much of one that is needed in part."""

    def __init__(self, place, store=None) -> None:
        self.place = place
        self.count = 0
        self.store = store or MemoryTransport()
        self.lab = FakeHypervisor()
        self.truth: dict[str, bytes] = {}
        opened = target(self.store, place / "main")
        opened.init()
        self.disk = guest(self.lab, "web", noise(12 * CHUNK + 9, 1)).disks["vda"]
        gone = [self.back_up(opened)]
        self.disk.write(0, noise(8 * CHUNK, 2))
        gone.append(self.back_up(opened))
        self.disk.write(4 * CHUNK, noise(CHUNK, 3))
        self.back_up(opened)
        self.disk.write(CHUNK, noise(CHUNK, 4))
        self.back_up(opened)
        for point in gone:
            del self.truth[point.id]
        guest(self.lab, "gone", noise(6 * CHUNK, 5))
        opened.delete([*gone, back_up(opened, self.lab, "gone")])
        opened.close()

    def back_up(self, opened):
        point = back_up(opened, self.lab, "web")
        self.truth[point.id] = bytes(self.disk.data)
        return point

    def fresh(self, store):
        self.count += 1
        return target(store, self.place / f"host{self.count}")

    def unreadable(self, store):
        """Verify on a host that has seen nothing; return the damaged chunks, and see that the rest is right."""
        opened = self.fresh(store)
        points = opened.points()
        assert {point.id for point in points} == self.truth.keys()
        damage = opened.verify(points, lambda size: None)
        hurt = {each.point for each in damage if each.length}
        for point in points:
            if point.id not in hurt:
                assert restored(opened, point) == {"vda": self.truth[point.id]}
        opened.close()
        return {
            (each.point, each.disk, number)
            for each in damage
            for number in range(each.offset // CHUNK, -(-(each.offset + each.length) // CHUNK))
        }

    def assert_clean(self, store):
        """All points are whole, and the store holds nothing that they do not need."""
        assert self.unreadable(store) == set()
        opened = self.fresh(store)
        needed = needed_packs(opened, opened.points())
        kinds = {key.partition("/")[0] for key in objects(store)}
        assert kinds <= {"repository", "keys", "packs", "index", "points", "deletions", "ended"}
        assert needed == {info.key for info in store.list("packs")}
        listed = opened._open().store.cache.packs()
        assert needed == {pack_key(name) for name in listed}
        assert all(pack.listed for pack in listed.values())
        opened.close()


def needed_packs(opened, points):
    store, ids = opened._open().store, set()
    for point in points:
        for disk in point.disks:
            ids |= set().union(*opened._reader(point, disk.key).map.needs())
    return {pack_key(place[0].pack) for place in store.locate(sorted(ids)).values()}


class Dies(FaultyTransport):
    """Does nothing any more from operation ``at`` on, which itself is carried out or not."""

    def __init__(self, inner, at, *, after) -> None:
        dead = Unavailable("killed", transient=False)
        super().__init__(
            inner, lambda n, op, key: dead if n >= at + after else None, lambda n, op, key: dead if n >= at else None
        )


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("shard", range(4))
def test_a_prune_that_is_killed_at_any_operation_is_completed_by_the_next(tmp_path, after, shard):
    site = Site(tmp_path)
    start = objects(site.store)
    store = store_of(start)
    counting = FaultyTransport(store)
    report = site.fresh(counting).prune(PruneOrder())
    assert report.freed > 0
    assert report.rewritten > 0
    site.assert_clean(store)
    for at in range(1 + shard, counting.operations + 1, 4):
        store = store_of(start)
        dying = site.fresh(Dies(store, at, after=after))
        with contextlib.suppress(Unavailable):
            dying.prune(PruneOrder())
        assert site.unreadable(store) == set()
        second = site.fresh(store)
        second.prune(PruneOrder(end_silent=True))
        second.close()
        site.assert_clean(store)


@pytest.mark.parametrize("forever", [False, True])
def test_a_prune_without_space_loses_nothing_and_is_completed_when_there_is_some(tmp_path, forever):
    site = Site(tmp_path)
    start = objects(site.store)
    for at in range(1, 40):
        store = store_of(start)
        puts = []

        def full(number, operation, key, at=at, puts=puts):
            puts.extend([key] * (operation == "put"))
            hit = len(puts) >= at if forever else len(puts) == at
            return NoSpace("the disk is full") if operation == "put" and hit else None

        opened = site.fresh(FaultyTransport(store, full))
        with contextlib.suppress(NoSpace):
            opened.prune(PruneOrder())
        opened.close()
        assert site.unreadable(store) == set()
        second = site.fresh(store)
        second.prune(PruneOrder(end_silent=True))
        second.close()
        site.assert_clean(store)
        if len(puts) < at:
            return
    pytest.fail("there were more puts than expected")


def test_a_prune_without_any_space_still_frees_what_nothing_needs(tmp_path):
    site = Site(tmp_path)
    full = FaultyTransport(
        site.store, lambda n, op, key: NoSpace("full") if op == "put" and key.startswith("packs/") else None
    )
    report = site.fresh(full).prune(PruneOrder())
    assert report.freed > 0
    assert report.rewritten == 0 or "no room" in str(report.notes)
    assert site.unreadable(site.store) == set()


def test_a_prune_makes_nothing_worse_after_a_pack_was_deleted_cut_or_spoilt(tmp_path):
    """What could be read before can be read after, and it ends, however often it is run."""
    site = Site(tmp_path)
    start = objects(site.store)
    for key in [key for key in start if key.startswith("packs/")]:
        for harm in (None, start[key][:0], start[key][:1500], start[key][:-1], start[key] + b"\0", spoilt(start[key])):
            store = store_of({**start, key: harm} if harm is not None else {k: v for k, v in start.items() if k != key})
            before = site.unreadable(store)
            for host in ("a", "b"):
                opened = site.fresh(store) if host == "a" else target(store_of(objects(store)), tmp_path / "main")
                with contextlib.suppress(VBackupError):
                    opened.prune(PruneOrder())
                opened.close()
            assert site.unreadable(store) <= before
            machine = site.fresh(store)
            machine.verify(machine.points(), lambda size: None)
            truth = dict(site.truth)
            point = site.back_up(machine)  # the machine still has it
            with contextlib.suppress(VBackupError):  # it cannot tell what points need whose maps are lost
                machine.prune(PruneOrder())
            healed = site.unreadable(store)
            assert point.id not in {each[0] for each in healed}
            assert healed <= before, (key, harm and len(harm), healed - before)
            machine.close()
            site.truth = truth


def spoilt(data):
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 255 for byte in data[middle : middle + 50]) + data[middle + 50 :]


@pytest.mark.parametrize("can_read", [True, False])
@pytest.mark.parametrize("part", [0.1, 1.0])
def test_what_a_store_reads_wrong_once_is_not_copied(tmp_path, can_read, part):
    """Bits flip on the way while packs are written anew; what is stored stays whole."""
    site = Site(tmp_path)
    rng = random.Random(5)
    private, public = new_private_key()
    opened = target(site.store, tmp_path / "main")
    opened.key_ring().add_recipient(public, "writer", read=can_read)
    opened.close()
    start = objects(site.store)

    class Flips(FaultyTransport):
        def get(self, key, offset=0, length=None):
            data = bytearray(self.inner.get(key, offset, length))
            if key.startswith("packs/") and len(data) > 5000 and rng.random() < part:
                data[rng.randrange(len(data))] ^= 1
            return bytes(data)

    for number in range(3):
        store = store_of(start)
        place = tmp_path / f"flips{number}"
        context = TargetContext("main", Flips(store), [codec("aes-256-gcm")], codec, lambda: private, place, place)
        flipping = Repository(RepositoryOptions(chunk_size=CHUNK), context)
        errors: list[str] = []
        for _ in range(3):
            try:
                flipping.prune(PruneOrder())
            except VBackupError as error:
                errors.append(error.message)
        assert all("pack" in error for error in errors)
        flipping.close()
        assert site.unreadable(store) == set()
        honest = site.fresh(store)
        honest.prune(PruneOrder(end_silent=True))
        site.assert_clean(store)


# -- locks ------------------------------------------------------------------------------------------------------------

DAYS = 30


class Asks(FaultyTransport):
    """Notes when a host asks for locks."""

    def __init__(self, inner) -> None:
        super().__init__(inner)
        self.asked: dict[str, list[datetime]] = defaultdict(list)

    def lock(self, key, until):
        self.asked[key].append(clock.now())
        super().lock(key, until)


def locking(store, place, days=DAYS):
    context = TargetContext(
        "main", store, [CODECS["aes-256-gcm"](CODECS["aes-256-gcm"].options())], codec, lambda: SECRET, place, place
    )
    return Repository(RepositoryOptions(chunk_size=CHUNK, lock_days=days), context)


@pytest.fixture
def today(monkeypatch):
    days = [datetime(2026, 1, 1, 3, tzinfo=UTC)]
    monkeypatch.setattr(clock, "now", lambda: days[0])
    return days


def test_in_a_year_of_daily_runs_nothing_that_a_point_needs_is_ever_free_too_early(tmp_path, today):
    """Two hosts in turn, each with a cache of its own; a prune and a deletion of old points each week."""
    store, lab, rng = MemoryTransport(can_lock=True), FakeHypervisor(), random.Random(1)
    asks = [Asks(store), Asks(store)]
    hosts = [locking(each, tmp_path / str(number)) for number, each in enumerate(asks)]
    hosts[0].init()
    disk = guest(lab, "web", noise(6 * CHUNK, 1)).disks["vda"]
    for day in range(365):
        host = hosts[day % 2]
        disk.write(rng.randrange(5) * CHUNK, rng.randbytes(CHUNK))
        point = back_up(host, lab, "web")
        until = today[0] + timedelta(days=DAYS)
        needed = {"repository", f"points/{point.id}", *(info.key for info in store.list("keys"))}
        needed |= needed_packs(host, [point])
        late = {key for key in needed if key not in store.locks or store.locks[key] < until}
        assert not late, f"on day {day} these could be deleted too early: {late}"
        stored = next(each for each in host.points() if each.id == point.id)
        assert stored.locked_until == until
        if day % 7 == 6:
            old = [each for each in host.points() if each.time < today[0] - timedelta(days=1.25 * DAYS + 1)]
            host.delete(old)
            host.prune(PruneOrder())
        today[0] += timedelta(days=1)
    assert host.verify(host.points(), lambda size: None) == []
    assert len(host.points()) < 50
    for asked in itertools.chain.from_iterable(each.asked.values() for each in asks):
        assert all(later - earlier > timedelta(days=DAYS / 4) for earlier, later in itertools.pairwise(asked))
    packs = {info.key for info in store.list("packs")}
    assert len(packs) < 2 * 1.25 * DAYS + 14  # those of the points that are there, and as many that are condemned


def test_locked_points_and_packs_stay_and_go_when_the_locks_are_over(tmp_path, today):
    store, lab = MemoryTransport(can_lock=True), FakeHypervisor()
    host = locking(store, tmp_path / "a")
    host.init()
    disk = guest(lab, "web", noise(6 * CHUNK, 1)).disks["vda"]
    first = back_up(host, lab, "web")
    disk.write(0, noise(6 * CHUNK, 2))
    second = back_up(host, lab, "web")
    with pytest.raises(Locked):
        host.delete([first])
    assert {point.id for point in host.points()} == {first.id, second.id}
    assert host.verify(host.points(), lambda size: None) == []
    packs = {info.key for info in store.list("packs")}
    other = target(store, tmp_path / "b")  # a host that knows nothing of locks
    for pruning in (host, other):
        pruning.prune(PruneOrder())
        assert {info.key for info in store.list("packs")} == packs
    today[0] += timedelta(days=1.25 * DAYS, seconds=1)
    host.delete([first])
    assert host.damaged_points() == []
    for pruning in (other, host):
        pruning.prune(PruneOrder())
    assert {info.key for info in store.list("packs")} == needed_packs(host, [second]) < packs
    assert restored(host, second) == {"vda": bytes(disk.data)}


def test_packs_that_were_condemned_while_locked_go_later(tmp_path, today):
    """Another host does not know the locks, condemns, and is refused: nobody counts on these packs any more."""
    store, lab = MemoryTransport(can_lock=True), FakeHypervisor()
    host = locking(store, tmp_path / "a")
    host.init()
    disk = guest(lab, "web", noise(6 * CHUNK, 1)).disks["vda"]
    first = back_up(host, lab, "web")
    old = bytes(disk.data)
    disk.write(0, noise(6 * CHUNK, 2))
    back_up(host, lab, "web")
    store.locks.pop(f"points/{first.id}")
    host.delete([first])
    other = target(store, tmp_path / "b")
    report = other.prune(PruneOrder())
    assert report.waiting > 0
    assert report.freed == 0
    disk.write(0, old)  # what was condemned is stored again
    point = back_up(host, lab, "web")
    today[0] += timedelta(days=1.25 * DAYS, seconds=1)
    assert other.prune(PruneOrder()).freed > 0
    assert not list(store.list("condemned"))
    for opened in (host, target(store, tmp_path / "c")):
        assert restored(opened, point) == {"vda": old}
        assert opened.verify(opened.points(), lambda size: None) == []


def test_locks_are_refused_at_once_where_the_store_has_none(tmp_path):
    store = Local(Local.options(path=tmp_path / "s"))
    with pytest.raises(ConfigError, match="lock_days"):
        locking(store, tmp_path / "c").init()
    assert not (tmp_path / "s" / "repository").exists()
    target(store, tmp_path / "d").init()
    with pytest.raises(ConfigError, match="lock_days"):
        locking(store, tmp_path / "e").points()
