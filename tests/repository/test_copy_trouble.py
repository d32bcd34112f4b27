"""Whatever dies or rots meanwhile: damage does not spread, and the next copy completes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.repository.two_repositories import CHUNK, OTHER, WAYS, Two, copy, copy_all, two, write_only
from tests.support import SECRET, guest, noise, repository, restored
from vbackup.api import Corrupt, Interrupted, Point, PruneOrder, Unavailable, VBackupError
from vbackup.engine.replicate import Common
from vbackup.repository.keys import new_private_key
from vbackup.repository.target import Repository
from vbackup.testing.transports import FaultyTransport, MemoryTransport

__all__ = ["two"]  # a fixture


@WAYS
def test_what_is_damaged_in_the_source_is_named_and_nothing_of_it_is_committed(two, family):
    two.live(1)
    target = two.make(family=family)
    key = max((info for info in two.here.list("packs")), key=lambda info: info.size).key
    whole = two.here.get(key)
    two.here.put(key, whole[:9000] + b"rotten" + whole[9006:])
    (point,) = two.source.points()
    with pytest.raises(Corrupt, match=f"{key}|vda"):
        copy(two.source, target, point)
    assert target.points() == []
    two.here.put(key, whole)
    two.source = repository(two.here, two.tmp_path / "fresh")
    copy(two.source, target, point)
    two.assert_whole(target)


def test_rot_does_not_spread_by_a_key_that_only_writes(tmp_path):
    """It cannot decode; but packs hash to their names."""
    _, public = new_private_key()
    path = tmp_path / "public"
    path.write_bytes(public)
    two = Two(tmp_path)
    two.here = MemoryTransport()
    two.source = write_only(two.here, tmp_path / "writer", SECRET, path)
    two.source.init()
    ring = two.source._open().keys.ring
    target = write_only(two.there, tmp_path / "copier", OTHER, path)
    target._found(ring)
    two.live(1)
    key = max((info for info in two.here.list("packs")), key=lambda info: info.size).key
    whole = two.here.get(key)
    for at in (9000, len(whole) // 2, len(whole) - 5000):
        two.here.put(key, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(Corrupt, match=key):
            copy(two.source, target, two.source.points()[0])
    assert target.points() == []


@WAYS
def test_points_beside_a_damaged_one_are_copied(two, family):
    two.live(1)
    packs = {info.key for info in two.here.list("packs")}
    disk = two.lab.guests["web"].disks["vda"]
    disk.write(0, noise(CHUNK, 20))
    damaged = two.back_up()
    (key,) = {info.key for info in two.here.list("packs")} - packs
    whole = two.here.get(key)
    start = get_blob(two.source, damaged)
    two.here.put(key, whole[:start] + b"rotten" + whole[start + 6 :])
    disk.write(0, noise(CHUNK, 21))
    two.back_up()
    target = two.make(family=family)
    first, _, last = two.source.points()
    one = copy(two.source, target, first)
    with pytest.raises(Corrupt, match=key):
        copy(two.source, target, damaged, Common(first, one.point))
    copy(two.source, target, last, Common(first, one.point))
    assert [point.id for point in target.points()] == [first.id, last.id]
    two.assert_whole(target)


def get_blob(target: Repository, point: Point) -> int:
    """Return where the first chunk of a point's first disk is in its pack."""
    (chunk,) = target._reader(point, point.disks[0].key).map.ids(0, 1)
    return target._open().store.cache.locate([chunk])[chunk][0].offset + 50


@WAYS
def test_a_base_that_is_damaged_in_the_destination_costs_time_only(two, family):
    two.live(1)
    target = two.make(family=family)
    copy_all(two.source, target)
    for info in list(two.there.list("packs")):
        two.there.delete(info.key)
    two.back_up()
    copy_all(two.source, target)
    point = target.points()[-1]
    assert restored(target, point) == two.history[point.id]
    assert target.verify([point], lambda size: None) == []


@WAYS
def test_an_earlier_point_that_is_damaged_in_the_source_costs_time_only(two, family):
    two.live(1)
    target = two.make(family=family)
    first = copy(two.source, target, two.source.points()[0]).point
    two.back_up()
    old, new = two.source.points()
    lie = old.model_copy(
        update={"disks": tuple(d.model_copy(update={"content": {"map": "ab" * 32}}) for d in old.disks)}
    )
    copy(two.source, target, new, Common(lie, first))
    two.assert_whole(target)


@WAYS
def test_prune_at_the_source_does_not_break_a_copy(two, family, monkeypatch):
    """Packs are rewritten after their places were looked up."""
    two.live(3)
    target = two.make(family=family)
    other = repository(two.here, two.tmp_path / "other")
    first, _, last = two.source.points()
    two.source.extents(last, "vda")
    two.source._open().store.look()
    other.delete([first])
    monkeypatch.setattr("vbackup.repository.prune._WASTE", 0.0)
    monkeypatch.setattr("vbackup.repository.prune._SMALL_PACKS", 1)
    before = {info.key for info in two.here.list("packs")}
    other.prune(PruneOrder())
    assert not before & {info.key for info in two.here.list("packs")}
    copy(two.source, target, last)
    two.assert_whole(target)


@WAYS
def test_stopping_ends_it_without_a_point(two, family):
    two.live(1)
    target = two.make(family=family)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        copy(two.source, target, two.source.points()[0], stop=stop)
    assert target.points() == []


class Died(BaseException):
    """The process is gone: nothing that it does has any effect."""


def fails(number: int) -> Callable[[int, str, str], Any]:
    return lambda n, operation, key: Unavailable("the store is away") if n == number else None


def dies(number: int) -> Callable[[int, str, str], Any]:
    return lambda n, operation, key: Died() if n >= number else None


@WAYS
@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("trouble", [fails, dies])
def test_whatever_operation_fails_or_dies_the_next_copy_completes(two, family, side, trouble):
    """At each one, before it and, if it writes, after; what was copied before verifies all the same."""
    guest(two.lab, "web", noise(3 * CHUNK, 1)).files = {"nvram": noise(100_000, 3)}
    two.back_up()
    two.lab.guests["web"].disks["vda"].write(0, b"changed")
    two.back_up()
    two.make(family=family).close()
    start = {info.key: two.there.get(info.key) for info in two.there.list()}
    number = 0
    while True:
        number += 1
        for after in (False, True) if side == "destination" else (False,):
            for info in list(two.there.list()):
                two.there.delete(info.key)
            for key, data in start.items():
                two.there.put(key, data)
            faults = {"fail_after" if after else "fail": trouble(number)}
            ended = attempt(two, f"{number}{after}", side, faults) < number
            fresh = two.destination_at(two.there, f"check{number}{after}")
            two.assert_whole(fresh)
            copy_all(two.source, fresh)
            assert len(fresh.points()) == 2
            two.assert_whole(fresh)
            fresh.close()
        if ended:
            assert number > 10
            return


def attempt(two: Two, name: str, side: str, faults: dict[str, Any]) -> int:
    """Copy everything with a fault; return how many operations the side that has it saw."""
    here = FaultyTransport(two.here, **(faults if side == "source" else {}))
    there = FaultyTransport(two.there, **(faults if side == "destination" else {}))
    source = repository(here, two.tmp_path / f"source{name}")
    target = two.destination_at(there, f"destination{name}")
    try:
        copy_all(source, target)
    except (VBackupError, Died):
        pass
    finally:
        source.close()
        target.close()
    return (here if side == "source" else there).operations
