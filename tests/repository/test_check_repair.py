"""Repair from what the repository itself still has: what can be healed is, and the rest is reported."""

from __future__ import annotations

from tests.repository.check_place import REPAIR, is_well, place, ranges
from tests.support import repository
from vbackup.api import CheckOrder, PruneOrder
from vbackup.repository.damaged import list_damaged
from vbackup.repository.index import read_index
from vbackup.repository.layout import pack_key
from vbackup.repository.sealing import ChunkKind

__all__ = ["place"]  # a fixture


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
