"""Stores that lie, are late, or go away: at most an error, never wrong bytes, and nothing that stays."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
import tracemalloc
from datetime import timedelta
from functools import partial

import pytest

from tests.repository.history import CHUNK, objects, store_of, target
from tests.support import back_up, guest, noise, restored
from vbackup.api import (
    AccessDenied,
    AlreadyExists,
    CheckOrder,
    Corrupt,
    NotFound,
    ObjectInfo,
    PruneOrder,
    Unavailable,
    Unsupported,
    VBackupError,
    clock,
)  # fmt: skip
from vbackup.repository import presence, prune
from vbackup.repository.points import write_body, write_point
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.liars import AppendOnly, History, Liar, Stale, WrongSizes
from vbackup.testing.transports import FaultyTransport, MemoryTransport
from vbackup.wrappers.retry import RetryingTransport

SEED = 3


class Site:
    """A repository with a few points, what they should give back, and some garbage."""

    def __init__(self, place) -> None:
        self.place = place
        self.numbers = itertools.count()
        self.may_be_misled = False
        """Whether packs were given for others when unlisted ones were adopted: an index may say so from then on."""
        self.store = MemoryTransport()
        self.lab = FakeHypervisor()
        self.truth: dict[str, dict[str, bytes]] = {}
        made = self.host("main", self.store)
        made.init()
        machine = guest(self.lab, "web", noise(12 * CHUNK + 9, 1), noise(3 * CHUNK, 2))
        machine.files = {"nvram": noise(99, 3)}
        guest(self.lab, "db", noise(4 * CHUNK, 4))
        points = [self.back_up(made)]
        for number in range(2):
            machine.disks["vda"].write((2 + number) * CHUNK, noise((3 - number) * CHUNK, 5 + number))
            points.append(self.back_up(made))
        self.back_up(made, "db")
        made.delete([points[1]])
        del self.truth[points[1].id]
        made.close()

    def host(self, name, store):
        return target(store, self.place / name)

    def fresh(self, store=None):
        return self.host(f"host-{next(self.numbers)}", store or self.store)

    def back_up(self, opened, name="web"):
        point = back_up(opened, self.lab, name)
        self.truth[point.id] = {key: bytes(disk.data) for key, disk in self.lab.guests[name].disks.items()}
        return point

    def assert_whole(self, store=None):
        """For a host that has seen nothing yet."""
        opened = self.fresh(store)
        points = opened.points()
        assert self.truth.keys() == {point.id for point in points}
        damage = opened.verify(points, lambda size: None) + opened.damaged_points()
        if self.may_be_misled:
            damage = [each for each in damage if each.length or "what the index says" not in each.reason]
        assert damage == []
        for point in points:
            assert restored(opened, point) == self.truth[point.id]
        opened.close()

    def try_everything(self, opened):
        """Only errors of ours may come out, and no wrong bytes; return the errors."""
        errors: list[VBackupError] = []

        def attempt(action):
            try:
                return action()
            except VBackupError as error:
                errors.append(error)
                return None

        for point in attempt(opened.points) or []:
            disks = attempt(partial(restored, opened, point))
            assert disks is None or disks == self.truth[point.id]
            attempt(partial(opened.verify, [point], lambda size: None))
        attempt(opened.damaged_points)
        attempt(opened.protected)
        attempt(lambda: opened.check(CheckOrder(read_data=True), lambda size: None))
        attempt(lambda: opened.prune(PruneOrder(dry_run=True)))
        attempt(lambda: opened.prune(PruneOrder(end_silent=True)))
        attempt(partial(self.back_up, opened))
        attempt(lambda: opened.prune(PruneOrder(end_silent=True)))
        opened.close()
        return errors


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setattr(presence, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(prune, "BEAT_SECONDS", 0.2)
    return Site(tmp_path)


# -- other bytes ------------------------------------------------------------------------------------------------------


def cut(rng, store, key, data):
    return data[: rng.randrange(len(data) + 1)]


def another(rng, store, key, data):
    kind = key.partition("/")[0]
    return store.get(rng.choice([info.key for info in store.list(kind)]))


def flipped(rng, store, key, data):
    changed = bytearray(data or b"\0")
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def empty(rng, store, key, data):
    return b""


@pytest.mark.parametrize("kind", ["repository", "keys", "packs", "index", "points", "sessions", "deletions", ""])
@pytest.mark.parametrize("lie", [cut, another, flipped, empty])
@pytest.mark.parametrize("part", [0.05, 1.0])
def test_a_store_that_gives_other_bytes_takes_nothing_away(site, lie, kind, part):
    """It lies always, or now and then, while everything is tried, prunes included; then it tells the truth again."""
    rng = random.Random(SEED)

    def gives(key, data):
        return lie(rng, site.store, key, data) if key.startswith(kind) and rng.random() < part else data

    site.may_be_misled = lie is another and kind in {"packs", ""}
    site.try_everything(site.host("main", Liar(site.store, gives)))
    site.try_everything(site.fresh(Liar(site.store, gives)))
    site.assert_whole()


@pytest.mark.parametrize("size", [lambda s: 0, lambda s: s + 1, lambda s: 1 << 50], ids=["none", "one more", "huge"])
@pytest.mark.parametrize("kind", ["packs", "index", "points", ""])
def test_wrong_sizes_in_listings_take_nothing_away(site, kind, size):
    def lie(key, true):
        return size(true) if key.startswith(kind) else true

    site.try_everything(site.host("main", WrongSizes(site.store, lie)))
    site.try_everything(site.fresh(WrongSizes(site.store, lie)))
    site.assert_whole()


def test_names_that_are_none_are_left_alone(site):
    """Nothing is read, deleted or restored by a name that a store makes up."""
    hostile = [
        "points/../../etc", "points/" + "A" * 32, "points/\0", "packs/zz/zz", "packs/" + "a" * 64, "index/..",
        "keys/..", "condemned/x", "sessions/x/y", "ended/../0", "deletions/%00", "protected/../../x", "damaged/x",
    ]  # fmt: skip

    class Store(FaultyTransport):
        def list(self, prefix=""):
            yield from self.inner.list(prefix)
            yield from (ObjectInfo(key, 5) for key in hostile if key.startswith(prefix))

        def get(self, key, offset=0, length=None):
            touched.append(key)
            if key in hostile:
                return b"hello"[offset:][:length]
            return self.inner.get(key, offset, length)

        def delete(self, key):
            deleted.append(key)
            self.inner.delete(key)

    touched: list[str] = []
    deleted: list[str] = []
    site.try_everything(site.fresh(Store(site.store)))
    assert not {key for key in deleted if key in hostile}
    site.assert_whole()


# -- late lists -------------------------------------------------------------------------------------------------------


class LateSite:
    """A writer and a pruner on hosts of their own, over one store; each has lists of its own age."""

    def __init__(self, place) -> None:
        self.place = place
        self.store, self.history = MemoryTransport(), History()
        self.lab = FakeHypervisor()
        self.truth: dict[str, bytes] = {}
        self.writes, self.prunes = Stale(self.store, self.history), Stale(self.store, self.history)
        self.writer, self.pruner = target(self.writes, place / "w"), target(self.prunes, place / "p")
        self.writer.init()
        self.machine = guest(self.lab, "web", noise(12 * CHUNK, 1))

    def back_up(self):
        point = back_up(self.writer, self.lab, "web")
        self.truth[point.id] = bytes(self.machine.disks["vda"].data)
        return point

    def damage(self):
        opened = target(self.store, self.place / f"fresh{len(list(self.place.iterdir()))}")
        points = opened.points()
        found = opened.verify(points, lambda size: None)
        bad = {each.point for each in found}
        for point in points:
            if point.id not in bad:
                assert restored(opened, point)["vda"] == self.truth[point.id]
        opened.close()
        return bad


@pytest.mark.parametrize("lag", [1, 2, 3, 5, 8, 13, 40])
@pytest.mark.parametrize("seed", range(3))
def test_a_prune_with_late_lists_removes_nothing_that_is_needed(tmp_path, lag, seed):
    """It misses points, packs and writers of the last changes, and still sees what is gone."""
    late = LateSite(tmp_path)
    rng = random.Random(seed)
    for _ in range(6):
        for _ in range(rng.randrange(1, 3)):
            late.machine.disks["vda"].write(rng.randrange(10) * CHUNK, rng.randbytes(2 * CHUNK))
            late.back_up()
        points = late.writer.points()
        if len(points) > 2:
            late.writer.delete([rng.choice(points[:-1])])
        with late.prunes.late(rng.randrange(lag + 1)):
            try:
                late.pruner.prune(PruneOrder())
            except VBackupError:
                continue  # it says that it cannot tell what is needed
    assert late.damage() == set()


def test_a_writer_with_late_lists_right_after_a_prune_may_build_on_what_is_gone_and_verify_says_so(tmp_path):
    """The limit that PRUNE.md states: such stores break the promise, for as long as their lists are late."""
    late = LateSite(tmp_path)
    first = late.back_up()
    content = bytes(late.machine.disks["vda"].data)
    late.machine.disks["vda"].write(0, noise(12 * CHUNK, 2))
    late.back_up()
    late.writer.delete([first])
    late.writer.points()
    before = len(late.history._changes)
    late.pruner.prune(PruneOrder())
    late.machine.disks["vda"].write(0, content)  # what was pruned a moment ago is back
    with late.writes.late(len(late.history._changes) - before):
        try:
            point = late.back_up()
        except VBackupError:
            pytest.fail("then it is noticed at once: say so in PRUNE.md")
    assert late.damage() == {point.id}


# -- a store that is away, or goes back in time -----------------------------------------------------------------------


class Outage:
    """A store that is away for some seconds from an operation on, by a clock that waiting moves."""

    def __init__(self, inner, seconds, deadline) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.start = None
        self.at = None
        self.faulty = FaultyTransport(inner, self.fail)
        self.transport = RetryingTransport(self.faulty, deadline, clock=lambda: self.now, wait=self.wait)

    def wait(self, seconds):
        self.now += seconds
        return False

    def fail(self, number, operation, key):
        if self.at is None or number < self.at:
            return None
        self.start = self.now if self.start is None else self.start
        return Unavailable("503 slow down") if self.now < self.start + self.seconds else None


def whole_life(site, opened):
    """Back up, verify, check, restore, prune; return what a verify complains of."""
    site.back_up(opened)
    points = opened.points()
    damage = [*opened.verify(points, lambda size: None), *opened.damaged_points()]
    damage += opened.check(CheckOrder(read_data=True), lambda size: None).damage
    for point in points:
        assert restored(opened, point) == site.truth[point.id]
    opened.prune(PruneOrder())
    return damage


def test_minutes_of_503_at_any_operation_fail_nothing(site):
    start = objects(site.store)
    truth = dict(site.truth)
    outage = Outage(store_of(start), 300, 900)
    assert whole_life(site, site.fresh(outage.transport)) == []
    total = outage.faulty.operations
    for at in range(1, total, max(1, total // 25)):
        site.truth = dict(truth)
        store = store_of(start)
        outage = Outage(store, 300, 900)
        outage.at = at
        assert whole_life(site, site.fresh(outage.transport)) == []
        assert outage.now >= 300
        site.assert_whole(store)


def test_an_outage_that_outlasts_all_patience_is_an_error_and_no_damage(site):
    start, truth = objects(site.store), dict(site.truth)
    outage = Outage(store_of(start), 3600, 60)
    assert whole_life(site, site.fresh(outage.transport)) == []
    total = outage.faulty.operations * 3 // 4  # how many there are depends on threads, a little
    for at in range(1, total, total // 20):
        site.truth = dict(truth)
        outage = Outage(store_of(start), 3600, 60)
        outage.at = at
        opened = site.host(f"patient-{at}", outage.transport)
        with pytest.raises(Unavailable):
            whole_life(site, opened)
        opened.close()
        again = site.host(f"patient-{at}", outage.faulty.inner)  # its cache holds nothing against the store
        assert again.verify(again.points(), lambda size: None) == again.damaged_points() == []
        with again.writer() as writer:
            assert not [note for note in writer.notes if "damaged" in note or "missing" in note]
        again.close()


def test_a_store_that_has_lost_everything_is_no_new_place(site):
    opened = site.host("main", site.store)
    seen = {point.id for point in opened.points()}
    opened.close()
    for host in ("main", "fresh"):
        with pytest.raises(NotFound, match="no repository there"):
            site.host(host, MemoryTransport()).points()
    other = MemoryTransport()
    site.host("elsewhere", other).init()
    with pytest.raises(Corrupt, match="another repository"):
        site.host("main", other).points()
    assert site.host("fresh", other).points() == []  # who has never been here is told nothing
    emptied = store_of({key: data for key, data in objects(site.store).items() if key.startswith(("repo", "keys"))})
    known = site.host("main", emptied)
    assert known.points() == []
    assert seen == {each.point for each in known.damaged_points()}
    with pytest.raises(Corrupt, match="cannot be told"):
        known.prune(PruneOrder())
    assert site.fresh(emptied).damaged_points() == []


def test_a_store_that_goes_back_in_time_is_caught_by_those_that_saw_more(site):
    before = objects(site.store)
    opened = site.host("main", site.store)
    point = site.back_up(opened)
    opened.close()
    rolled = store_of(before)
    known = site.host("main", rolled)
    assert [point.id] == [each.point for each in known.damaged_points()]
    newcomer = site.fresh(rolled)
    assert newcomer.damaged_points() == []
    assert point.id not in {each.id for each in newcomer.points()}


def test_a_point_that_was_deleted_and_is_shown_again_does_no_harm(site):
    before = {key: data for key, data in objects(site.store).items() if key.startswith("points/")}
    opened = site.host("main", site.store)
    gone = opened.points()[0]
    opened.delete([gone])
    opened.prune(PruneOrder())
    site.store.put(f"points/{gone.id}", before[f"points/{gone.id}"])
    for host in (opened, site.fresh()):
        damage = host.verify(host.points(), lambda size: None) + host.damaged_points()
        assert {gone.id} >= {each.point for each in damage}
        for point in host.points():
            try:
                assert restored(host, point) == site.truth[point.id]
            except Corrupt:
                assert point.id == gone.id


# -- clocks -----------------------------------------------------------------------------------------------------------

DAY = timedelta(days=1)


@pytest.mark.parametrize("writers", [-DAY, 0 * DAY, DAY])
@pytest.mark.parametrize("pruners", [-DAY, 0 * DAY, DAY])
def test_clocks_that_are_a_day_off_end_no_session_that_lives_and_cost_no_data(site, monkeypatch, writers, pruners):
    true, offset = clock.now, threading.local()
    monkeypatch.setattr(clock, "now", lambda: true() + getattr(offset, "by", writers))  # the beats' thread, too
    opened, pruner = site.host("main", site.store), site.fresh()
    with opened.writer() as writer:
        file = writer.file(noise(5 * CHUNK, 60))
        offset.by = pruners
        pruner.prune(PruneOrder())
        offset.by = writers
        writer.check()
        assert file["size"] == 5 * CHUNK
    site.back_up(opened)
    site.lab.guests["web"].disks["vda"].write(0, noise(CHUNK, 61))
    point = site.back_up(opened)  # what it is built on is the last one by its number, not by its time
    assert point.disks[0].full_reason is None
    assert point.sequence == max(each.sequence for each in opened.points())
    offset.by = pruners
    pruner.prune(PruneOrder())
    assert not [key for key in objects(site.store) if key.startswith(("sessions/", "condemned/"))]
    site.assert_whole()


@pytest.mark.parametrize("by", [-DAY, DAY])
def test_a_dead_writer_whose_clock_was_a_day_off_is_ended(site, monkeypatch, by):
    true = clock.now
    monkeypatch.setattr(clock, "now", lambda: true() + by)
    dies = FaultyTransport(site.store, lambda n, op, key: Unavailable("dead") if gone or gone_at(op, key) else None)
    gone: list[bool] = []

    def gone_at(operation, key):
        gone.extend([True] * (operation == "put" and key.startswith("points/")))
        return bool(gone)

    with pytest.raises(Unavailable):
        back_up(site.fresh(dies), site.lab, "db")
    monkeypatch.setattr(clock, "now", true)
    assert list(site.store.list("sessions"))
    site.fresh().prune(PruneOrder())
    assert not list(site.store.list("sessions"))
    site.assert_whole()


# -- init, formats ----------------------------------------------------------------------------------------------------


class Unconditional(FaultyTransport):
    """A store without conditional puts."""

    @property
    def can_put_if_absent(self) -> bool:
        return False


@pytest.mark.parametrize("kind", [FaultyTransport, Unconditional])
def test_of_many_inits_at_once_one_wins_at_the_most(tmp_path, kind):
    store = kind(MemoryTransport())
    start = threading.Barrier(32)
    won: list[str] = []
    lost: list[VBackupError] = []

    def init(number):
        opened = target(store, tmp_path / str(number))
        start.wait()
        try:
            opened.init()
            won.append(opened.id)
        except AlreadyExists as error:
            lost.append(error)

    threads = [threading.Thread(target=init, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) + len(lost) == 32
    assert len(won) <= 1
    again = target(store, tmp_path / "again")
    if kind is FaultyTransport:
        assert len(won) == 1
    elif not won:
        again.init()
        won.append(again.id)
    assert again.id == won[0]
    assert again.points() == []


def test_an_init_that_comes_between_the_steps_of_another_does_not_replace_it(tmp_path):
    """Both have found nothing there; without conditional puts the later one must not win as well."""
    store = MemoryTransport()
    won: list[str] = []

    def meanwhile(number, operation, key):
        if operation == "put" and key == "repository" and not won:
            won.append("")
            other = target(Unconditional(store), tmp_path / "b")
            try:
                other.init()
                won[0] = other.id
            except AlreadyExists:
                won.clear()
                won.append("nobody")

    opened = target(Unconditional(store, meanwhile), tmp_path / "a")
    try:
        opened.init()
    except AlreadyExists:
        assert won[0] != "nobody"
    else:
        assert won[0] == "nobody"
    assert target(store, tmp_path / "c").points() == []


def test_a_newer_format_is_refused_by_all_that_open_it(site):
    document = json.loads(site.store.get("repository"))
    site.store.put("repository", json.dumps({**document, "format": 2, "more": [1]}).encode())
    for action in (
        lambda opened: opened.points(),
        lambda opened: opened.prune(PruneOrder()),
        lambda opened: opened.check(CheckOrder(), lambda size: None),
        lambda opened: back_up(opened, site.lab, "db"),
        lambda opened: opened.init(),
        lambda opened: opened.key_ring(),
    ):
        with pytest.raises(Unsupported, match="newer format"):
            action(site.fresh())


# -- few rights -------------------------------------------------------------------------------------------------------


def test_a_credential_that_only_adds_can_write_and_read_and_not_prune(site):
    only_adds = AppendOnly(site.store)
    opened = site.fresh(only_adds)
    site.back_up(opened)
    site.lab.guests["web"].disks["vda"].write(0, noise(CHUNK, 70))
    assert site.back_up(opened).disks[0].full_reason is None
    points = opened.points()
    assert opened.verify(points, lambda size: None) == []
    assert {point.id: restored(opened, point) for point in points} == site.truth
    with pytest.raises(AccessDenied):
        opened.delete(points[:1])
    for order in (PruneOrder(), PruneOrder(end_silent=True)):
        with pytest.raises(AccessDenied):
            opened.prune(order)
    assert list(site.store.list("sessions"))  # it could not remove its signs of life
    site.assert_whole()
    began = time.monotonic()
    report = site.fresh().prune(PruneOrder())
    assert time.monotonic() - began < 10
    assert report.waiting == 0
    assert report.freed > 0
    assert not list(site.store.list("sessions"))  # nobody waited for them: they say that they have ended
    site.assert_whole()


# -- many points ------------------------------------------------------------------------------------------------------


def test_memory_for_a_listing_grows_with_the_points_only(site):
    """Thousands of points that a store makes up as it is asked; all under one seal, each with its own id."""
    count = 8_000
    opened = site.fresh()
    model = opened.points()[0]
    session = opened._open().session(opened._context.codecs)
    body = write_body(session._chain, model, opened.description(model))
    keys, chain = opened._open().keys, session._chain
    session.close(keep=True)

    class Store(FaultyTransport):
        def list(self, prefix=""):
            if prefix == "points":
                return (ObjectInfo(f"points/{number:032x}", 3000) for number in range(count))
            return self.inner.list(prefix)

        def get(self, key, offset=0, length=None):
            if not key.startswith("points/"):
                return self.inner.get(key, offset, length)
            point = model.model_copy(update={"id": key[-32:]})
            return write_point(keys, chain, point, body)[offset:][:length]

    many = site.fresh(Store(site.store))
    many._open()
    tracemalloc.start()
    try:
        points = many.points()
        used, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(points) == count
    assert used < count * 10_000
    assert most < count * 20_000
