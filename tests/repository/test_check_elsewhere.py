"""Repair from another copy: all that it has is brought back, and nothing that it makes up."""

from __future__ import annotations

import random

import pytest

from tests.repository.check_place import CHUNK, REPAIR, Copy, is_well, place, ranges
from tests.support import noise
from vbackup.api import CheckOrder, PruneOrder
from vbackup.repository.sealing import ChunkKind

__all__ = ["place"]  # a fixture


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


@pytest.mark.parametrize("seed", range(2))
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


@pytest.mark.parametrize("seed", range(2))
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
