"""Checks and repairs amid writers, prunes, failures and kills: no false damage, and nothing taken away."""

from __future__ import annotations

import random
import threading

import pytest

from tests.repository.check_place import ALL, CHUNK, REPAIR, Copy, Died, is_well, place
from tests.support import noise, repository
from vbackup.api import CheckOrder, PruneOrder, Unavailable, VBackupError
from vbackup.repository.documents import put_document
from vbackup.repository.presence import Honoured
from vbackup.repository.sealing import ChunkKind
from vbackup.testing.transports import FaultyTransport, MemoryTransport

__all__ = ["place"]  # a fixture


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


# A store that fails


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
