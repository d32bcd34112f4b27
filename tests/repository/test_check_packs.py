"""Checks of packs: what is whole is reported whole, and every kind of damage is found and mapped exactly."""

from __future__ import annotations

import random

import pytest

from tests.repository.check_place import ALL, is_well, place, ranges
from vbackup.api import CheckOrder
from vbackup.testing.transports import FaultyTransport

__all__ = ["place"]  # a fixture


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
