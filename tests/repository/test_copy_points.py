"""Points are copied bit for bit, and only what is missing travels, whatever sizes and codecs the two have."""

from __future__ import annotations

import pytest

from tests.repository.two_repositories import CHUNK, OTHER, WAYS, Two, copy_all, two
from tests.support import noise

__all__ = ["two"]  # a fixture


@WAYS
def test_every_point_restores_bit_for_bit_from_its_copy(two, family):
    two.live()
    target = two.make(family=family)
    copy_all(two.source, target)
    assert [point.id for point in target.points()] == [point.id for point in two.source.points()]
    two.assert_whole(target)
    two.assert_whole(two.destination(secret=OTHER))


@WAYS
def test_a_copy_says_of_the_machine_what_the_point_says(two, family):
    two.live(2)
    target = two.make(family=family)
    copy_all(two.source, target)
    for point, made in zip(two.source.points(), target.points(), strict=True):
        own = {"content", "changed", "stored"}
        for disk, other in zip(point.disks, made.disks, strict=True):
            assert disk.model_dump(exclude=own) == other.model_dump(exclude=own)
        own = {"disks", "files"}
        assert point.model_dump(exclude=own) == made.model_dump(exclude=own)
        assert two.source.description(point) == target.description(made)
    first, second = target.points()
    assert first.changed == 45 * CHUNK + 77
    assert second.changed == 2 * CHUNK


@WAYS
def test_of_the_next_point_only_the_change_travels(two, family):
    two.live(1)
    target = two.make(family=family)
    copy_all(two.source, target)
    two.lab.guests["web"].disks["vda"].write(11 * CHUNK, noise(CHUNK, 5))
    two.back_up()
    for store in (two.here, two.there):
        store.clear()
    (replica,) = copy_all(two.source, target)
    assert replica.point.changed == CHUNK
    assert replica.read < 4 * CHUNK  # the chunk, and one that shows that the bases are one
    assert two.here.read < 10 * CHUNK
    assert two.there.written < 3 * CHUNK
    two.assert_whole(target)
    assert copy_all(two.source, target) == []


@WAYS
def test_without_a_common_point_nothing_is_stored_twice(two, family):
    """An interrupted copy left chunks; the point it was for is copied anew."""
    two.live(1)
    target = two.make(family=family)
    (replica,) = copy_all(two.source, target)
    target.delete([replica.point])
    (again,) = copy_all(two.source, target)
    assert again.point.stored == 0
    two.assert_whole(target)


@pytest.mark.parametrize(("source_chunk", "chunk"), [(CHUNK, 4 * CHUNK), (4 * CHUNK, CHUNK), (32 << 10, 128 << 10)])
def test_chunk_sizes_and_codecs_may_differ_and_disks_be_resized(tmp_path, source_chunk, chunk):
    two = Two(tmp_path, source_chunk=source_chunk, chunk_size=chunk, codecs=("aes-256-gcm",))
    two.live(2)
    target = two.make(family=False)
    for size in (30 * CHUNK, 30 * CHUNK + 5, 3 * CHUNK, 64 * CHUNK, 0, 7 * CHUNK):
        two.lab.guests["web"].disks["vda"].resize(size)
        if size > 2 * CHUNK:
            two.lab.guests["web"].disks["vda"].write(2 * CHUNK - 3, b"changed")
        two.back_up()
        copy_all(two.source, target)
    two.assert_whole(target)


@WAYS
def test_resized_disks_are_copied_on_top_of_what_they_were(two, family):
    two.live(1)
    target = two.make(family=family)
    for size in (90 * CHUNK, 90 * CHUNK - 9, 20 * CHUNK, 300 * CHUNK, 299 * CHUNK, 1, 0):
        two.lab.guests["web"].disks["vda"].resize(size)
        two.back_up()
        copy_all(two.source, target)
    two.assert_whole(target)


def test_disks_come_and_go(two):
    two.live(1)
    target = two.make(family=True)
    copy_all(two.source, target)
    disks = two.lab.guests["web"].disks
    disks["vdc"] = disks.pop("vdb")
    two.back_up()
    copy_all(two.source, target)
    two.assert_whole(target)
