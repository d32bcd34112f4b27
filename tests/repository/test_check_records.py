"""Checks of all that is no pack: each damaged index, point, record, slot and session is named."""

from __future__ import annotations

import os

import pytest

from tests.repository.check_place import REPAIR, WRITER, is_well, place, ranges
from tests.support import back_up
from vbackup.api import CheckOrder, NotFound, PruneOrder, clock
from vbackup.repository.documents import put_document
from vbackup.repository.keys import put_slot, wrap
from vbackup.repository.presence import Beat, Honoured
from vbackup.repository.sealing import ChunkKind

__all__ = ["place"]  # a fixture


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


def test_a_point_that_is_gone_is_not_checked_but_missed(place):
    target = place.open()
    points = target.points()
    place.store.delete(f"points/{points[0].id}")
    (damage,) = target.check(CheckOrder(), lambda size: None).damage
    assert damage.point == points[0].id
    target.close()
    with pytest.raises(NotFound):
        place.store.get(f"points/{points[0].id}")


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
